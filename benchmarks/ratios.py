"""Ratios of two samples whose members are not paired, with the uncertainty that comes from few seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ratio:
    """A geometric mean ratio and its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def geometric_ratio(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]) -> Ratio:
    """Return ours / theirs as the geometric mean over kinds and seeds; both map a kind to values, one a seed.

    The interval is a percentile bootstrap over seeds, drawn for each kind and side by itself.
    """
    random = np.random.default_rng(0)
    mean = np.mean([_log(ours[kind]).mean() - _log(theirs[kind]).mean() for kind in ours])
    drawn = [_means(_log(ours[kind]), random) - _means(_log(theirs[kind]), random) for kind in ours]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.mean(drawn, axis=0), [tail, 1 - tail])
    return Ratio(float(np.exp(mean)), float(np.exp(low)), float(np.exp(high)))


def _log(values: Sequence[float]) -> NDArray[np.float64]:
    return np.log(np.asarray(values, dtype=np.float64))


def _means(values: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    means: NDArray[np.float64] = random.choice(values, size=(RESAMPLES, len(values))).mean(axis=1)
    return means
