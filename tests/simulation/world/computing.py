"""Stages that take virtual time and sometimes fail: the hub's compute in the simulated world."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from fakes.compute import TENSOR, FakeCompute, digest
from resonator.failures import Failure, FailureKind
from resonator_hub.build import Kernel
from resonator_hub.compute import ComputeFailed
from resonator_hub.frontends import ModelCard

LARGE = 50_000
"""Bytes of a kernel that does not fit into a message, even compressed: it is pulled."""


class SlowCompute(FakeCompute):
    """Answers after a while; of a hundred builds a few fail for good, of all calls a few just now."""

    def __init__(self, chance: random.Random, slots: int) -> None:
        super().__init__()
        self._chance = chance
        self._places = asyncio.Semaphore(slots)

    async def run(self, function: Callable[..., Any], *args: object, timeout_s: float) -> Any:
        """Run a stage."""
        async with self._places:
            await asyncio.sleep(self._chance.uniform(0.02, 1.0))
            if function.__name__ in ("build", "select", "update") and self._chance.random() < 0.02:
                raise ComputeFailed(f"{function.__name__}: its worker was killed")
            return getattr(self, function.__name__)(*args)

    def build(self, workload: bytes, trace: bytes, target: str) -> Any:
        """Build a kernel; whether it can be built and how large it is depend on its trace."""
        fate = random.Random(trace)
        if fate.random() < 0.05:
            return Failure(kind=FailureKind.BUILD_ERROR, detail="it has no loops")
        padding = fate.randbytes(LARGE) if fate.random() < 0.03 else b""
        library = b"kernel " + trace + b" of " + workload + padding
        return Kernel(library, digest(library), (TENSOR,))

    def update(self, samples: Any, previous: bytes | None) -> bytes:
        """There is no cost model: nothing has learned anything."""
        return b"model"

    def answers(self, model: bytes, shapes: object, seed: int) -> bytes:
        """Return what a model's outputs must be."""
        return b"answers of " + model[:20]

    def check(self, model: bytes, shapes: object) -> ModelCard:
        """Every model is a good one."""
        return ModelCard("model", (TENSOR,), ("y",), ("Add",), 1, 1)
