"""Stages that take no time: plausible answers, or whatever a test wants instead."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from resonator.tensors import TensorSpec
from resonator_hub.artifacts import Compiled, pack_arrays
from resonator_hub.build import Kernel
from resonator_hub.frontends import Extraction, ModelCard, Workload
from resonator_hub.frontends.onnx import check
from resonator_hub.search import Proposal

TENSOR = TensorSpec(name="x", shape=(1,), dtype="float32")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class FakeCompute:
    """Answers at once; `instead` has functions that take the place of a stage, `calls` what was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.instead: dict[str, Callable[..., Any]] = {}

    def asked(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of every call of a stage."""
        return [arguments for called, arguments in self.calls if called == name]

    async def run(self, function: Callable[..., Any], *args: object, timeout_s: float) -> Any:
        name = function.__name__
        self.calls.append((name, args))
        return self.instead.get(name, getattr(self, name))(*args)

    def extract(self, model: bytes, shapes: object, target: str) -> Extraction:
        modules = (b"workload 0", b"workload 1")
        tasks = tuple(
            Workload(f"op{n}", n + 1, data, digest(data), 1e6, "like", (n,)) for n, data in enumerate(modules)
        )
        return Extraction(tasks, (TENSOR,), (TENSOR,))

    def select(
        self,
        workload: bytes,
        _target: str,
        _tried: object,
        _model: object,
        count: int,
        seed: int,
        seen: object,
        hints: object,
    ) -> tuple[Proposal, ...]:
        traces = [b"%b %d %d" % (workload, seed, n) for n in range(count)]
        return tuple(Proposal(trace, digest(trace), b"features of " + trace, None) for trace in traces)

    def build(self, workload: bytes, trace: bytes, target: str) -> Kernel:
        library = b"kernel " + trace + b" of " + workload
        return Kernel(library, digest(library), (TENSOR,))

    def update(self, samples: Any, previous: bytes | None) -> bytes:
        return b"%b+%d" % (previous or b"", len(samples))

    def compile_model(self, model: bytes, shapes: object, target: str, best: Any) -> Compiled:
        return Compiled(b"library with %d" % len(best), (TENSOR,), (TENSOR,), len(best))

    def answers(self, model: bytes, shapes: object, seed: int) -> bytes:
        return pack_arrays({"in:x": np.zeros(1), "out:y": np.ones(1)})

    def check(self, model: bytes, shapes: Mapping[str, Sequence[int]]) -> ModelCard:
        return check(model, shapes)
