"""One side of the comparison of whole models, in a process of its own.

`python opponents.py SIDE FILE INPUTS CORES`: SIDE is `resonator` (FILE is a bundle; the TVM runtime alone is
loaded) or `onnxruntime` (FILE is an ONNX model); INPUTS is an npz file. For each line it reads, the seconds
to go on for, it prints the latencies of the runs in that time as a JSON list. What the model gives for INPUTS
is left beside them first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WARM_S = 0.3
LEAST_RUNS = 5
Times = Callable[[int], list[float]]
"""Runs a model so many times, and returns the latencies in seconds."""


class Opponent:
    """A process that runs one model on cores of its own, when it is told to."""

    def __init__(self, side: str, file: Path, inputs: Path, cores: tuple[int, ...]) -> None:
        names = ",".join(map(str, cores))
        command = ["taskset", "-c", names, sys.executable, __file__, side, str(file), str(inputs), names]
        environment = {**os.environ, "TVM_NUM_THREADS": str(len(cores)), "OPENBLAS_NUM_THREADS": "1"}
        self._outputs = _outputs(side, inputs)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._answer()

    def outputs(self) -> dict[str, Any]:
        """Return what the model gave, by name."""
        with np.load(self._outputs, allow_pickle=False) as arrays:
            return dict(arrays)

    def latencies(self, span_s: float) -> list[float]:
        """Let the model run for `span_s` seconds; return the latency of each run in seconds."""
        assert self._process.stdin is not None
        print(span_s, file=self._process.stdin, flush=True)
        return list(self._answer())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("one side of the comparison has failed, see above")
        return json.loads(line)


def main(side: str, file: str, inputs: Path, threads: int) -> None:
    with np.load(inputs, allow_pickle=False) as arrays:
        feed = dict(arrays)
    outputs, times = _resonator(file, feed) if side == "resonator" else _onnxruntime(file, feed, threads)
    np.savez(_outputs(side, inputs), **outputs)
    once = min(times(LEAST_RUNS))
    times(max(LEAST_RUNS, round(WARM_S / once)))
    print("null", flush=True)
    for line in sys.stdin:
        print(json.dumps(times(max(LEAST_RUNS, round(float(line) / once)))), flush=True)


def _outputs(side: str, inputs: Path) -> Path:
    return inputs.with_suffix(f".{side}.npz")


def _resonator(file: str, feed: dict[str, Any]) -> tuple[dict[str, Any], Times]:
    from resonator.bundle import load

    model = load(file)
    return model(feed), lambda runs: model.time(feed, repeat=runs)


def _onnxruntime(file: str, feed: dict[str, Any], threads: int) -> tuple[dict[str, Any], Times]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    # Bound, so that only the model is timed: neither side copies its inputs from numpy, or outputs to it.
    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_cpu_input(name, array)
    for name in names:
        binding.bind_output(name)

    def times(runs: int) -> list[float]:
        taken = []
        for _ in range(runs):
            began = time.perf_counter()
            session.run_with_iobinding(binding)
            taken.append(time.perf_counter() - began)
        return taken

    return dict(zip(names, session.run(names, feed), strict=True)), times


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), len(sys.argv[4].split(",")))
