"""One model of boosted trees per kind of hardware, extended by each batch of measurements."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resonator_hub.cost_model.features import unpack_features

if TYPE_CHECKING:
    from xgboost import Booster, DMatrix

MAX_TREES = 600
FIRST_TREES = 40
MORE_TREES = 8
PARAMETERS = {
    "max_depth": 8,
    "eta": 0.2,
    "gamma": 0.001,
    "min_child_weight": 0,
    "base_score": 0.0,
    "disable_default_eval_metric": 1,
    "nthread": 1,
    "seed": 43,
}
_BEST = "best_latency_s"


@dataclass(frozen=True)
class Sample:
    """A measured kernel: its features, its latency in seconds and the task (`group`) it belongs to."""

    features: bytes
    latency_s: float
    group: str


def update(samples: Sequence[Sample], previous: bytes | None) -> bytes:
    """Return a model that has also learned `samples`; `previous` is extended, not trained again.

    A sample's score is the best latency known of its group divided by its own, in (0, 1], so that tasks
    of very different latencies share one model. A full model (`MAX_TREES`) gives up its younger half:
    what is left is a model by itself, which the removal of old trees would not leave.
    """
    import xgboost

    if not samples:
        raise ValueError("a cost model needs at least one sample")
    booster = _load(previous) if previous else None
    best = json.loads(booster.attr(_BEST)) if booster else {}
    for sample in samples:
        best[sample.group] = min(sample.latency_s, best.get(sample.group, sample.latency_s))
    if booster and booster.num_boosted_rounds() + MORE_TREES > MAX_TREES:
        booster = booster[: MAX_TREES // 2]
    scores = np.array([best[sample.group] / sample.latency_s for sample in samples])
    matrix, owners = _stores([sample.features for sample in samples], scores)
    trained = xgboost.train(
        PARAMETERS,
        matrix,
        num_boost_round=MORE_TREES if booster else FIRST_TREES,
        xgb_model=booster,
        obj=_sum_over_stores(owners),
    )
    trained.set_attr(**{_BEST: json.dumps(best, sort_keys=True)})
    return bytes(trained.save_raw("ubj"))


def predict(model: bytes, features: Sequence[bytes]) -> list[float]:
    """Return the score of each candidate, higher is faster; 1 is as fast as the best known of its task."""
    if not features:
        return []
    matrix, owners = _stores(features, None)
    per_store = _load(model).predict(matrix, output_margin=True)
    return [float(score) for score in np.bincount(owners, weights=per_store, minlength=len(features))]


def _load(model: bytes) -> Booster:
    import xgboost

    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(model))
    return booster


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
