"""ONNX Runtime's latency on given cores: `python -m resonator_hub.demo.yardstick MODEL CORE[,CORE]`."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from typing import Any

WARM_UP_S = 0.5
MEASURE_S = 3.0
LEAST_REPEATS = 10


def measure(model: str, cores: set[int]) -> list[float]:
    """Return the latencies in seconds of `model` on `cores`, one thread a core, this process pinned there."""
    os.sched_setaffinity(0, cores)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(cores)
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = {given.name: _random(given.shape, given.type) for given in session.get_inputs()}
    _repeat(session, inputs, WARM_UP_S, 1)
    return _repeat(session, inputs, MEASURE_S, LEAST_REPEATS)


def _repeat(session: Any, inputs: dict[str, Any], span_s: float, least: int) -> list[float]:
    latencies: list[float] = []
    while len(latencies) < least or sum(latencies) < span_s:
        start = time.perf_counter()
        session.run(None, inputs)
        latencies.append(time.perf_counter() - start)
    return latencies


def _random(shape: list[Any], kind: str) -> Any:
    import numpy as np

    dims = [dim if isinstance(dim, int) else 1 for dim in shape]
    dtype = {"tensor(float)": "float32", "tensor(double)": "float64"}.get(kind)
    generator = np.random.default_rng(0)
    return generator.standard_normal(dims).astype(dtype) if dtype else np.zeros(dims, "int64")


if __name__ == "__main__":
    found = measure(sys.argv[1], {int(core) for core in sys.argv[2].split(",")})
    print(json.dumps({"median": statistics.median(found), "low": min(found), "repeats": len(found)}))
