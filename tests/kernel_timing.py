"""Runs kernels in this process, for tests that need real latencies."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from resonator_hub.build import Kernel


def target() -> str:
    """Return the JSON of a TVM target for one core of this machine."""
    import json

    import tvm.target.codegen

    cpu = str(tvm.target.codegen.llvm_get_system_cpu())
    return json.dumps({"kind": "llvm", "mcpu": cpu, "num-cores": 1})


def run(kernel: Kernel, seed: int = 0) -> list[np.ndarray]:
    """Return all arguments after one run on random inputs; the last one is the output."""
    import tvm

    module, arguments = _load(kernel, seed)
    module["main"](*arguments)
    assert isinstance(arguments[-1], tvm.runtime.Tensor)
    return [argument.numpy() for argument in arguments]


def latency_s(kernel: Kernel) -> float:
    """Return the smallest of three means."""
    import tvm

    module, arguments = _load(kernel, 0)
    timer = module.time_evaluator("main", tvm.cpu(), number=1, repeat=3, min_repeat_ms=5)
    return float(min(timer(*arguments).results))


def _load(kernel: Kernel, seed: int):  # type: ignore[no-untyped-def]
    import tvm

    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.so")
        path.write_bytes(kernel.library)
        module = tvm.runtime.load_module(str(path))
    arrays = [random.standard_normal(spec.shape).astype(spec.dtype) for spec in kernel.arguments]
    return module, [tvm.runtime.tensor(array, tvm.cpu()) for array in arrays]
