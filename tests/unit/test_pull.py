"""A pull over links of all kinds: each is kept busy, and none is flooded with what was asked for twice."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import pytest

from resonator.bus.pull import Pull
from resonator.messages import MAX_CHUNK, BlobChunk, BlobRequest


@dataclass
class Line:
    """A peer at the end of a line with a rate (bytes/s) and a latency (s, one way), which serves in turn."""

    rate: float
    latency_s: float
    carried: int = 0
    free_at: float = 0.0

    def answered_at(self, request: BlobRequest, now: float) -> float:
        self.carried += request.length
        self.free_at = max(self.free_at, now + self.latency_s) + request.length / self.rate
        return self.free_at + self.latency_s


def seconds(size: int, line: Line) -> float:
    """Pull `size` bytes over a line; return how long it took."""
    pull, now = Pull("0" * 64, size), 0.0
    under_way: list[tuple[float, int, BlobRequest]] = []
    while not pull.over:
        for request in pull.requests(now):
            heapq.heappush(under_way, (line.answered_at(request, now), len(under_way), request))
        wake_at = pull.wake_at
        if wake_at is not None and wake_at < under_way[0][0]:
            now = wake_at
            continue
        now, _, request = heapq.heappop(under_way)
        data = bytes(request.length)
        pull.accept(BlobChunk(digest=pull.digest, offset=request.offset, total=size, data=data))
    assert pull.failure is None
    return now


@pytest.mark.parametrize(
    ("rate", "latency_s"),
    [(125_000, 0.05), (30_000, 0.05), (125_000, 0.6), (1_000_000, 0.05), (10_000_000, 0.002)],
    ids=["1 Mbit/s", "a quarter of that", "by satellite", "8 Mbit/s", "80 Mbit/s"],
)
def test_a_link_is_busy_and_carries_little_twice(rate: float, latency_s: float) -> None:
    size, line = 100 * MAX_CHUNK, Line(rate, latency_s)
    took_s = seconds(size, line)
    assert line.carried < 1.1 * size
    assert took_s < 1.2 * size / rate


def test_a_line_with_a_long_way_is_filled_by_several_requests() -> None:
    size, line = 100 * MAX_CHUNK, Line(1_000_000, 0.6)
    alone_s = 100 * (MAX_CHUNK / line.rate + 2 * line.latency_s)
    assert seconds(size, line) < alone_s / 3
    assert line.carried == size
