"""Models are looked at before they are accepted, in a process that a bad one costs, not in the hub."""

from __future__ import annotations

from resonator import bundle
from resonator.jobspec import TuningJob
from resonator_hub.frontends import ModelInvalid
from resonator_hub.frontends.model import MAX_MODEL_BYTES
from resonator_hub.frontends.onnx import check
from resonator_hub.workshop import Computes

TIMEOUT_S = 30.0


class Reception:
    """Says of a submission what is wrong with it; models have `max_model` bytes at most."""

    def __init__(self, compute: Computes, max_model: int = MAX_MODEL_BYTES) -> None:
        self._compute = compute
        self._max_model = max_model

    def weigh(self, size: int, *, bench: bool) -> None:
        """Raise ModelInvalid for what has too many bytes, before any of them is fetched."""
        what, most = ("bundle", bundle.MAX_BYTES) if bench else ("model", self._max_model)
        if size > most:
            raise ModelInvalid(f"The {what} has {size} bytes; at most {most} are accepted.")

    async def check(self, model: bytes, spec: TuningJob) -> None:
        """Raise ModelInvalid for a model that cannot be imported with the shapes that were given.

        Raises ComputeFailed for one that cannot be looked at within the limits of its process.
        """
        await self._compute.run(check, model, dict(spec.spec.model.shapes), timeout_s=TIMEOUT_S)
