"""One model of boosted trees per kind of hardware, extended by each batch of measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import msgpack
import numpy as np
from numpy.typing import NDArray

from resonator_hub.cost_model.features import unpack_features

if TYPE_CHECKING:
    from xgboost import Booster

TREES = 100
MEMORY = 2000
"""How many samples a model remembers, at about 500 bytes each."""
PARAMETERS = {
    "objective": "reg:squarederror",
    "max_depth": 5,
    "eta": 0.1,
    "gamma": 0.001,
    "subsample": 0.8,
    "colsample_bytree": 0.5,
    "nthread": 1,
    "seed": 43,
}


@dataclass(frozen=True)
class Sample:
    """A measured kernel: its features, its latency in seconds and the task (`group`) it belongs to."""

    features: bytes
    latency_s: float
    group: str


@dataclass(frozen=True)
class _State:
    """What a model's bytes hold."""

    booster: bytes
    memory: tuple[Sample, ...]
    best_s: dict[str, float]
    """The best latency known of each group, also of those whose samples are forgotten."""


def update(samples: Sequence[Sample], previous: bytes | None) -> bytes:
    """Return a model that knows `samples` and what `previous` remembers of those before.

    A sample's score is the best latency known of its group divided by its own, in (0, 1], so that tasks
    of very different latencies share one model; its logarithm is learned, so that slow kernels are told
    apart too. It is the memory that is extended, and the trees are trained on all of it: trees added for
    the new samples alone rank held-out kernels little better than chance (59 % of the pairs, where
    training on all ranks 73; four operators, batches of 8). Takes 0.05 s for a hundred samples, 0.5 s for
    a full memory. Raises ValueError where there is nothing to learn.
    """
    state = _unpack(previous) if previous else _State(b"", (), {})
    memory = (*state.memory, *samples)[-MEMORY:]
    if not memory:
        raise ValueError("a cost model needs at least one sample")
    best = dict(state.best_s)
    for sample in samples:
        best[sample.group] = min(sample.latency_s, best.get(sample.group, sample.latency_s))
    return _pack(_State(_train(memory, best), memory, best))


def predict(model: bytes, features: Sequence[bytes]) -> list[float]:
    """Return the score of each candidate, higher is faster; 1 is as fast as the best known of its task."""
    if not features:
        return []
    import xgboost

    logarithms = _loaded(model).predict(xgboost.DMatrix(_rows(features), nthread=1))
    return [float(score) for score in np.exp(logarithms)]


def _train(memory: Sequence[Sample], best_s: Mapping[str, float]) -> bytes:
    import xgboost

    labels = np.log([best_s[sample.group] / sample.latency_s for sample in memory])
    matrix = xgboost.DMatrix(_rows([sample.features for sample in memory]), label=labels, nthread=1)
    return bytes(xgboost.train(PARAMETERS, matrix, num_boost_round=TREES).save_raw("ubj"))


def _rows(features: Sequence[bytes]) -> NDArray[np.float32]:
    """Return one row for each candidate: the sum of its stores' features.

    Against TVM's way, a row for each store and the sum of their predictions: 75 % of the pairs of
    held-out kernels in order instead of 71, and one row instead of about five.
    """
    return np.stack([unpack_features(packed).sum(axis=0) for packed in features])


@lru_cache(maxsize=1)  # one search asks the same model many times
def _loaded(model: bytes) -> Booster:
    import xgboost

    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(_unpack(model).booster))
    return booster


def _pack(state: _State) -> bytes:
    samples = [[sample.features, sample.latency_s, sample.group] for sample in state.memory]
    return bytes(msgpack.packb([state.booster, samples, state.best_s]))


def _unpack(model: bytes) -> _State:
    booster, samples, best_s = msgpack.unpackb(model)
    return _State(booster, tuple(Sample(*sample) for sample in samples), best_s)
