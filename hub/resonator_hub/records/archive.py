"""The best records of many workloads as one small file, to be kept and handed on.

It holds no workloads: whoever has the model extracts them again, and knows them by their digests.
"""

from __future__ import annotations

import lzma
import math
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import astuple, dataclass

import msgpack

from resonator.errors import ResonatorError

VERSION = 1
BEST = 3
"""How many records of a workload on a target are kept: the next best deserve a second look."""
MAX_BYTES = 256 * 2**20


class ArchiveInvalid(ResonatorError):
    """These bytes are no archive of records, or a damaged one."""


@dataclass(frozen=True)
class Archived:
    """One record: the workload by digest and name, its schedule, where it ran, and its latency in seconds."""

    workload: str
    name: str
    target: str
    """JSON of the TVM target dictionary that the kernel was built for."""
    trace: bytes
    latency_s: float


def best(records: Iterable[Archived], count: int = BEST) -> tuple[Archived, ...]:
    """Return the `count` fastest records of each workload on each target, fastest first."""
    of: defaultdict[tuple[str, str], dict[bytes, Archived]] = defaultdict(dict)
    for record in records:
        known = of[record.target, record.workload]
        if record.trace not in known or record.latency_s < known[record.trace].latency_s:
            known[record.trace] = record
    kept: list[Archived] = []
    for _, known in sorted(of.items()):
        kept += sorted(known.values(), key=lambda record: (record.latency_s, record.trace))[:count]
    return tuple(kept)


def pack(records: Collection[Archived]) -> bytes:
    """Return records as bytes; equal records in equal order give equal bytes."""
    # Each trace is compressed by itself; compressed together, what all have in common is stored once.
    rows = [[*astuple(one)[:3], zlib.decompress(one.trace), one.latency_s] for one in records]
    return lzma.compress(bytes(msgpack.packb([VERSION, rows])))


def unpack(data: bytes) -> tuple[Archived, ...]:
    """Return the records that `pack` packed. Raises `ArchiveInvalid`."""
    try:
        decoder = lzma.LZMADecompressor()
        plain = decoder.decompress(data, MAX_BYTES)
        if not decoder.eof:
            raise ArchiveInvalid(f"The archive is truncated, or holds more than {MAX_BYTES} bytes.")
        version, rows = msgpack.unpackb(plain)
    except (lzma.LZMAError, TypeError, ValueError) as error:
        raise ArchiveInvalid(f"This is no archive of records: {error}.") from None
    if version != VERSION:
        raise ArchiveInvalid(f"The archive has version {version!r}; version {VERSION} is accepted.")
    if not isinstance(rows, list):
        raise ArchiveInvalid("This is no archive of records: it holds no list of them.")
    return tuple(_record(row) for row in rows)


def _record(row: list[object]) -> Archived:
    match row:
        case [str(workload), str(name), str(target), bytes(trace), float(latency_s)]:
            if 0 < latency_s < math.inf:
                return Archived(workload, name, target, zlib.compress(trace, 6), latency_s)
    raise ArchiveInvalid("The archive holds something that is not a record.")
