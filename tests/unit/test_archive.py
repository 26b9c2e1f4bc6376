"""The archive of best records."""

from __future__ import annotations

import lzma
import zlib

import msgpack
import pytest

from resonator_hub.records.archive import Archived, ArchiveInvalid, best, pack, unpack

TARGET = '{"kind": "llvm"}'


def record(latency_s: float, *, workload: str = "w", target: str = TARGET, trace: str = "") -> Archived:
    text = trace or f"trace of {latency_s}"
    return Archived(workload, "conv2d", target, zlib.compress(text.encode(), 6), latency_s)


def test_what_is_packed_comes_back() -> None:
    records = (record(1e-3), record(2e-3, workload="v"))

    assert unpack(pack(records)) == records


def test_equal_records_give_equal_bytes() -> None:
    assert pack([record(1e-3)]) == pack([record(1e-3)])


def test_traces_that_resemble_each_other_are_stored_almost_once() -> None:
    texts = [" ".join(str(number * number) for number in range(seed, 3000 + seed)) for seed in range(50)]
    records = [record(1.0 + seed, trace=text) for seed, text in enumerate(texts)]

    assert len(pack(records)) < 5 * len(pack(records[:1]))


def test_the_fastest_of_each_workload_and_target_are_kept_fastest_first() -> None:
    other = '{"kind": "cuda"}'
    records = [record(3.0), record(1.0), record(2.0), record(9.0, workload="v"), record(8.0, target=other)]

    kept = best(records, count=2)

    assert [(one.target, one.workload, one.latency_s) for one in kept] == [
        (other, "w", 8.0),
        (TARGET, "v", 9.0),
        (TARGET, "w", 1.0),
        (TARGET, "w", 2.0),
    ]


def test_a_trace_that_was_measured_twice_is_kept_once_with_its_better_latency() -> None:
    kept = best([record(2.0, trace="same"), record(1.0, trace="same"), record(3.0, trace="other")])

    assert [one.latency_s for one in kept] == [1.0, 3.0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"nonsense", "no archive"),
        (pack([record(1.0)])[:-20], "truncated"),
        (lzma.compress(b"\xc1"), "no archive"),
        (lzma.compress(msgpack.packb(7)), "no archive"),
        (lzma.compress(msgpack.packb([2, []])), "version 2"),
        (lzma.compress(msgpack.packb([1, [["w", "n", "t", b"", -1.0]]])), "not a record"),
        (lzma.compress(msgpack.packb([1, [["w", "n", "t", "text", 1.0]]])), "not a record"),
        (lzma.compress(msgpack.packb([1, 5])), "no archive"),
    ],
    ids=["empty", "noise", "cut", "no msgpack", "no list", "version", "latency", "trace", "rows"],
)
def test_other_bytes_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ArchiveInvalid, match=reason):
        unpack(data)
