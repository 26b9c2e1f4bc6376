"""What a cost model remembers of the kernels it was taught: a balanced choice of bounded size."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resonator_hub.cost_model.features import WIDTH, unpack_features

LIMIT = 1000
"""How many kernels are remembered, at 656 bytes each before compression."""


@dataclass(frozen=True)
class Sample:
    """A measured kernel: its features, its latency in seconds and the task (`group`) it belongs to."""

    features: bytes
    latency_s: float
    group: str


@dataclass(frozen=True)
class Memory:
    """Remembered kernels, oldest first: one row of features, one latency and one group each.

    `best_s` is the best latency known of each group, also of those whose kernels are forgotten; `taught`
    counts every kernel ever taught.
    """

    rows: NDArray[np.float32]
    latencies_s: NDArray[np.float64]
    groups: tuple[str, ...]
    best_s: dict[str, float]
    taught: int

    @classmethod
    def empty(cls) -> Memory:
        """Return the memory of a model that was taught nothing."""
        return cls(np.empty((0, WIDTH), np.float32), np.empty(0), (), {}, 0)

    def extended(self, samples: Sequence[Sample]) -> Memory:
        """Return a memory with these samples, in which the larger groups were thinned to the limit."""
        best_s = dict(self.best_s)
        for sample in samples:
            best_s[sample.group] = min(sample.latency_s, best_s.get(sample.group, sample.latency_s))
        grown = Memory(
            np.concatenate([self.rows, rows_of([sample.features for sample in samples])]),
            np.concatenate([self.latencies_s, [sample.latency_s for sample in samples]]),
            (*self.groups, *(sample.group for sample in samples)),
            best_s,
            self.taught + len(samples),
        )
        return grown._thinned()

    def scores(self) -> NDArray[np.float64]:
        """Return the logarithm of each kernel's score: the best latency of its group by its own."""
        best = np.array([self.best_s[group] for group in self.groups])
        logarithms: NDArray[np.float64] = np.log(best / self.latencies_s)
        return logarithms

    def pack(self) -> list[Any]:
        """Return plain data that `unpack` reads."""
        names = sorted(set(self.groups))
        number = {name: index for index, name in enumerate(names)}
        rows = zlib.compress(self.rows.astype("<f4").tobytes(), 1)
        latencies = self.latencies_s.astype("<f8").tobytes()
        return [rows, latencies, names, [number[name] for name in self.groups], self.best_s, self.taught]

    @classmethod
    def unpack(cls, data: list[Any]) -> Memory:
        """Return the memory that `pack` packed."""
        rows, latencies, names, numbers, best_s, taught = data
        return cls(
            np.frombuffer(zlib.decompress(rows), "<f4").reshape(-1, WIDTH),
            np.frombuffer(latencies, "<f8"),
            tuple(names[number] for number in numbers),
            best_s,
            taught,
        )

    def _thinned(self) -> Memory:
        """Return a memory within the limit: of every group the same number at most, chosen at random."""
        if len(self.groups) <= LIMIT:
            return self
        most = _most(Counter(self.groups))
        order = np.random.default_rng(self.taught).permutation(len(self.groups))
        left = dict.fromkeys(self.groups, most)
        kept = []
        for index in order:
            group = self.groups[index]
            if left[group]:
                left[group] -= 1
                kept.append(int(index))
        kept = sorted(kept)[-LIMIT:]  # more groups than the limit: the latest
        groups = tuple(self.groups[index] for index in kept)
        return Memory(self.rows[kept], self.latencies_s[kept], groups, self.best_s, self.taught)


def rows_of(features: Sequence[bytes]) -> NDArray[np.float32]:
    """Return one row for each candidate: the sum of its stores' features.

    Against TVM's way, a row for each store and the sum of their predictions: 75 % of the pairs of
    held-out kernels in order instead of 71, and one row instead of about five.
    """
    if not features:
        return np.empty((0, WIDTH), np.float32)
    return np.stack([unpack_features(packed).sum(axis=0) for packed in features])


def _most(sizes: Counter[str]) -> int:
    """Return how many kernels of each group fit, at least one."""
    room, groups = LIMIT, len(sizes)
    for size in sorted(sizes.values()):
        if size * groups > room:
            break
        room, groups = room - size, groups - 1
    return max(1, room // max(1, groups))
