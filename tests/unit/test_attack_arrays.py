"""Files of arrays that claim more than they hold, or hold more than data, are refused unread."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resonator.arrays import MAX_ARRAYS, MAX_BYTES, ArraysInvalid, read_arrays


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **arrays)
    return buffer.getvalue()


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def header(shape: str, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def read(data: bytes) -> dict[str, Any]:
    return read_arrays(io.BytesIO(data))


def test_what_numpy_writes_comes_back_and_can_be_written_to() -> None:
    arrays: dict[str, Any] = {
        "x": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns first": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "scalar": np.array(3, np.int8),
        "empty": np.zeros((0, 4), np.float16),
        "truth": np.array([True, False]),
    }
    found = read(npz(**arrays))
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    found["x"][0, 0] = 7.0
    assert read(npz()) == {}


def test_attack_by_a_pickled_object() -> None:
    with pytest.raises(ArraysInvalid, match=r"holds 'x\.npy', whose elements are no numbers but object"):
        read(npz(x=np.array([{}], dtype=object)))


@pytest.mark.parametrize("array", [np.array(["text"]), np.zeros(2, [("a", "<f4"), ("b", "<f4")])])
def test_elements_that_are_no_numbers_are_refused(array: Any) -> None:
    with pytest.raises(ArraysInvalid, match="no numbers"):
        read(npz(x=array))


def test_attack_by_an_array_that_claims_terabytes() -> None:
    data = zipped(("x.npy", header("(1099511627776,)") + bytes(64)))
    tracemalloc.start()
    try:
        with pytest.raises(ArraysInvalid, match="does not have the 4398046511104 bytes it claims"):
            read(data)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_attack_by_decompression() -> None:
    """Two members of 3 GiB each, as far as their directory tells; nothing of them is unpacked."""
    data = bytearray(zipped(("x.npy", header("(16,)") + bytes(64)), ("y.npy", header("(16,)") + bytes(64))))
    start = 0
    while (start := data.find(b"PK\x01\x02", start)) >= 0:
        data[start + 24 : start + 28] = (3 * 2**30).to_bytes(4, "little")
        start += 4
    with pytest.raises(ArraysInvalid, match=f"holds arrays of {6 * 2**30} bytes; at most {MAX_BYTES}"):
        read(bytes(data))


def test_attack_by_very_many_arrays_or_two_of_one_name() -> None:
    with pytest.raises(ArraysInvalid, match=f"at most {MAX_ARRAYS} are accepted"):
        read(zipped(*((f"{number}.npy", b"") for number in range(MAX_ARRAYS + 1))))
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = zipped(("x.npy", header("()")), ("x.npy", header("()")))
    with pytest.raises(ArraysInvalid, match="several arrays of one name"):
        read(twice)


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"rubbish",
        header("(-4,)"),
        header("(2, -3)"),
        header("'a'"),
        header("(1,)", "no type"),
        header("(" * 90),
    ],
)
def test_attack_by_a_header(member: bytes) -> None:
    with pytest.raises(ArraysInvalid):
        read(zipped(("x.npy", member)))


@given(st.data())
def test_a_damaged_file_is_refused_or_reads_as_arrays(data: st.DataObject) -> None:
    whole = bytearray(npz(x=np.arange(4, dtype=np.float32)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except ArraysInvalid:
        return
    assert all(array.nbytes <= 64 for array in found.values())
