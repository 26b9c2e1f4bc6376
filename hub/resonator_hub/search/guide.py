"""What the evolutionary search asks which candidates are worth keeping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resonator_hub import cost_model as learned

if TYPE_CHECKING:
    from tvm.ir import IRModule
    from tvm.s_tir import Schedule
    from tvm.target import Target


class Guide:
    """Scores candidates by the learned cost model, or at random while there is none."""

    def __init__(self, cost_model: bytes | None, seed: int) -> None:
        self._cost_model = cost_model
        self._random = np.random.default_rng(seed)
        self._error: Exception | None = None

    @property
    def knows(self) -> bool:
        """Whether there is a cost model to go by."""
        return self._cost_model is not None

    def scores(self, context: Any, candidates: Sequence[Any]) -> NDArray[np.float64]:
        """Return one score for each candidate, higher is faster; shape (candidates,)."""
        if self._cost_model is None:
            return self._random.random(len(candidates))
        try:
            rows = _features(context, candidates)
            return np.asarray(learned.predict(self._cost_model, rows), dtype=np.float64)
        except Exception as error:  # kept, because it would get lost in the C++ of the search
            self._error = error
            return np.zeros(len(candidates))

    def raise_error(self) -> None:
        """Raise what went wrong in a call from the search, if anything did."""
        if self._error is not None:
            raise self._error

    def as_tvm(self) -> Any:
        """Return this guide as the cost model that TVM's search takes."""
        from tvm.ir.utils import derived_object
        from tvm.s_tir.meta_schedule.cost_model import PyCostModel

        guide = self

        @derived_object
        class Model(PyCostModel):  # type: ignore[misc]
            def load(self, path: str) -> None: ...

            def save(self, path: str) -> None: ...

            def update(self, context: Any, candidates: list[Any], results: list[Any]) -> None: ...

            def predict(self, context: Any, candidates: list[Any]) -> NDArray[np.float64]:
                return guide.scores(context, candidates)

        return Model()


def features_of(module: IRModule, target: Target, schedules: Sequence[Schedule]) -> list[bytes]:
    """Return TVM's features of each schedule: a packed float32 array of shape (stores, 164)."""
    from tvm.s_tir import meta_schedule as ms

    context = ms.TuneContext(mod=module, target=target)
    return _features(context, [ms.MeasureCandidate(schedule, []) for schedule in schedules])


def _features(context: Any, candidates: Sequence[Any]) -> list[bytes]:
    from tvm.s_tir.meta_schedule.feature_extractor import PerStoreFeature

    if not candidates:
        return []
    arrays = PerStoreFeature().extract_from(context, list(candidates))
    return [learned.pack_features(array.numpy()) for array in arrays]
