"""One model of boosted trees per kind of hardware, extended by each batch of measurements."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import msgpack
import numpy as np

from resonator_hub.cost_model.memory import Memory, Sample, rows_of

if TYPE_CHECKING:
    from xgboost import Booster

TREES = 100
PARAMETERS = {
    "objective": "reg:squarederror",
    "max_depth": 5,
    "eta": 0.1,
    "gamma": 0.001,
    "subsample": 0.8,
    "colsample_bytree": 0.5,
    "max_bin": 32,  # a third of the time of 256 bins, and ranks as well
    "nthread": 1,
    "seed": 43,
}


def update(samples: Sequence[Sample], previous: bytes | None) -> bytes:
    """Return a model that knows `samples` and what `previous` remembers of those before.

    A sample's score is the best latency known of its group divided by its own, in (0, 1], so that tasks
    of very different latencies share one model; its logarithm is learned, so that slow kernels are told
    apart too. It is the memory that is extended, and the trees are grown anew on all of it, which takes
    as long after 20,000 samples as after 1,000 (docs/adr/0001). Raises ValueError where there is nothing
    to learn.
    """
    memory = Memory.empty() if previous is None else _memory(previous)
    memory = memory.extended(samples)
    if not memory.groups:
        raise ValueError("a cost model needs at least one sample")
    return bytes(msgpack.packb(_trees(memory))) + bytes(msgpack.packb(memory.pack()))


def trees(model: bytes) -> bytes:
    """Return the part of a model that `predict` needs: a third of a full one, without its memory."""
    return bytes(msgpack.packb(_parts(model).unpack()))


def predict(model: bytes, features: Sequence[bytes]) -> list[float]:
    """Return the score of each candidate, higher is faster; 1 is as fast as the best known of its task."""
    if not features:
        return []
    import xgboost

    logarithms = _loaded(model).predict(xgboost.DMatrix(rows_of(features), nthread=1))
    return [float(score) for score in np.exp(logarithms)]


def _trees(memory: Memory) -> bytes:
    import xgboost

    matrix = xgboost.DMatrix(memory.rows, label=memory.scores(), nthread=1)
    return bytes(xgboost.train(PARAMETERS, matrix, num_boost_round=TREES).save_raw("ubj"))


@lru_cache(maxsize=1)  # one search asks the same model many times
def _loaded(model: bytes) -> Booster:
    import xgboost

    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(_parts(model).unpack()))
    return booster


def _memory(model: bytes) -> Memory:
    parts = _parts(model)
    parts.skip()
    return Memory.unpack(parts.unpack())


def _parts(model: bytes) -> msgpack.Unpacker:
    """Return a reader of a model's two parts, its trees and its memory."""
    parts = msgpack.Unpacker(max_buffer_size=len(model))
    parts.feed(model)
    return parts
