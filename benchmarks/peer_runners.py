"""TVM's runners, as its tuner uses them, on kernels that are built.

`python peer_runners.py local` or `python peer_runners.py rpc TRACKER_PORT` reads kernels (`kernel_set.pack`);
prints JSON: the seconds that the device was occupied by all of them, and the latency of each.
"""

from __future__ import annotations

import json
import sys
import time
from statistics import mean
from typing import Any

from fleets import KEY
from kernel_set import unpack

TIMING = {"number": 3, "repeat": 1, "min_repeat_ms": 100}


def main(kind: str, port: int) -> None:
    from resonator_hub import warm

    kernels = unpack(sys.stdin.read())
    warm.load()
    runner = rpc_runner(port) if kind == "rpc" else local_runner()
    inputs = [runner_input(kernel.archive, kernel.arguments) for kernel in kernels]
    # Its worker imports TVM at its first kernel.
    if measure(runner, inputs[:1]) == [None]:
        sys.exit("TVM's runner fails on the first kernel, see above")
    began = time.monotonic()
    latencies = measure(runner, inputs)
    print(json.dumps({"seconds": time.monotonic() - began, "latencies": latencies}))


def local_runner() -> Any:
    """Return the runner that measures in a process on this machine."""
    from tvm.s_tir import meta_schedule as ms

    return ms.runner.LocalRunner(evaluator_config=ms.runner.EvaluatorConfig(**TIMING))


def rpc_runner(port: int) -> Any:
    """Return the runner that measures on a server which the tracker on this port knows."""
    from tvm.s_tir import meta_schedule as ms

    rpc = ms.runner.RPCConfig(tracker_host="127.0.0.1", tracker_port=port, tracker_key=KEY)
    return ms.runner.RPCRunner(rpc, ms.runner.EvaluatorConfig(**TIMING), max_workers=1)


def runner_input(archive: str, arguments: list[tuple[list[int], str]]) -> Any:
    """Return a kernel as TVM's runners are given it."""
    from tvm.s_tir import meta_schedule as ms

    infos = [ms.arg_info.TensorInfo(dtype, shape) for shape, dtype in arguments]
    return ms.runner.RunnerInput(archive, "cpu", infos)


def measure(runner: Any, inputs: list[Any]) -> list[float | None]:
    """Return the latency of each kernel in seconds, None for those that fail."""
    results = [future.result() for future in runner.run(inputs)]
    for one in results:
        if one.error_msg:
            print(one.error_msg, file=sys.stderr)
    return [mean(map(float, one.run_secs)) if one.run_secs else None for one in results]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
