"""Arrays by name, as `numpy.savez` writes them: what a file claims is weighed before it is unpacked."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from math import prod
from typing import IO, TYPE_CHECKING, Any

from resonator.errors import ResonatorError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_ARRAYS = 1024
MAX_BYTES = 2**32
"""Of all arrays of a file together, unpacked."""
_SUFFIX = ".npy"
_NUMBERS = "biufcV"
"""The kinds of elements that are read; bfloat16 and its like are V to numpy."""


class ArraysInvalid(ResonatorError):
    """A file has no arrays that can be read; the text goes on after the file's name."""


def read_arrays(file: IO[bytes]) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file, all of numbers, by name. Raises `ArraysInvalid` and OSError."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _weigh(members)
            return {member.filename.removesuffix(_SUFFIX): _array(archive, member) for member in members}
    except (ArraysInvalid, OSError):
        raise
    except Exception as error:  # zipfile, zlib and numpy have a dozen kinds for a damaged file
        raise ArraysInvalid("is not a file of numpy.savez (.npz)") from error


def _weigh(members: Sequence[zipfile.ZipInfo]) -> None:
    if len(members) > MAX_ARRAYS:
        raise ArraysInvalid(f"holds {len(members)} arrays; at most {MAX_ARRAYS} are accepted")
    if len({member.filename for member in members}) < len(members):
        raise ArraysInvalid("holds several arrays of one name")
    size = sum(member.file_size for member in members)
    if size > MAX_BYTES:
        raise ArraysInvalid(f"holds arrays of {size} bytes; at most {MAX_BYTES} are accepted")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    import numpy as np

    with archive.open(member) as stream:
        shape, columns_first, dtype = _header(stream)
        if dtype.kind not in _NUMBERS or dtype.names is not None:
            raise ArraysInvalid(f"holds {member.filename[:100]!r}, whose elements are no numbers but {dtype}")
        size = prod(shape) * dtype.itemsize
        if size != member.file_size - stream.tell():
            name = member.filename[:100]
            raise ArraysInvalid(f"is damaged: {name!r} does not have the {size} bytes it claims")
        data = bytearray(stream.read(size))
    return np.ndarray(shape, dtype, data, order="F" if columns_first else "C")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, order and element type, which numpy reads as literals, and of 10,000 characters at most."""
    from numpy.lib import format as npy

    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(stream)
    if version not in readers:
        raise ValueError(version)
    shape, columns_first, dtype = readers[version](stream)
    if any(extent < 0 for extent in shape):
        raise ValueError(shape)
    return shape, columns_first, dtype
