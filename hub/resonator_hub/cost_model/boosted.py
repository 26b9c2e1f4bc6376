"""One model of boosted trees per kind of hardware, extended by each batch of measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from resonator_hub.cost_model.features import unpack_features

if TYPE_CHECKING:
    from xgboost import Booster, DMatrix

TREES = 60
MEMORY = 2000
"""How many samples a model remembers, at about 500 bytes each."""
PARAMETERS = {
    "max_depth": 8,
    "eta": 0.2,
    "gamma": 0.001,
    "min_child_weight": 1,
    "base_score": 0.0,
    "disable_default_eval_metric": 1,
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
    of very different latencies share one model. It is the memory that is extended, and the trees are
    trained on all of it: trees added for the new samples alone rank held-out kernels little better than
    chance (59 % of the pairs, where training on all ranks 73; four operators, batches of 8).
    Takes 0.02 s for a hundred samples. Raises ValueError where there is nothing to learn.
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
    matrix, owners = _stores(features, None)
    per_store = _loaded(model).predict(matrix, output_margin=True)
    return [float(score) for score in np.bincount(owners, weights=per_store, minlength=len(features))]


def _train(memory: Sequence[Sample], best_s: Mapping[str, float]) -> bytes:
    import xgboost

    scores = np.array([best_s[sample.group] / sample.latency_s for sample in memory])
    matrix, owners = _stores([sample.features for sample in memory], scores)
    booster = xgboost.train(PARAMETERS, matrix, num_boost_round=TREES, obj=_sum_over_stores(owners))
    return bytes(booster.save_raw("ubj"))


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


def _stores(
    features: Sequence[bytes], scores: NDArray[np.float64] | None
) -> tuple[DMatrix, NDArray[np.int64]]:
    """Return one row for each store of each candidate, and which candidate each row belongs to."""
    import xgboost

    arrays = [unpack_features(packed) for packed in features]
    owners = np.repeat(np.arange(len(arrays)), [len(array) for array in arrays])
    labels = None if scores is None else scores[owners]
    return xgboost.DMatrix(np.concatenate(arrays), label=labels, nthread=1), owners


def _sum_over_stores(owners: NDArray[np.int64]) -> Any:
    """Return the squared error of the *sum* of a candidate's rows, weighted towards the fast candidates.

    A kernel's features come as one row for each store in its program, and its latency is what they take
    together; so each row's prediction is one term of the sum (TVM's and Ansor's way).
    """

    def objective(
        predicted: NDArray[np.float32], matrix: DMatrix
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        labels = matrix.get_label()
        totals = np.bincount(owners, weights=predicted.reshape(-1))[owners]
        return (totals - labels) * labels, labels.astype(np.float64)

    return objective
