"""TVM's runners, as its tuner uses them, on kernels that are built.

`python peer_runners.py local` or `python peer_runners.py rpc TRACKER_PORT` reads kernels (`kernel_set.pack`) and
prints JSON: the seconds that the device was occupied by all of them, and the latency of each.
"""

from __future__ import annotations

import json
import sys
import time
from statistics import mean
from typing import Any

from fleets import KEY
from kernel_set import Built, unpack

TIMING = {"number": 3, "repeat": 1, "min_repeat_ms": 100}


def main(kind: str, port: int) -> None:
    from resonator_hub import warm

    kernels = unpack(sys.stdin.read())
    warm.load()
    runner = _runner(kind, port)
    inputs = [_input(kernel) for kernel in kernels]
    # Its worker imports TVM at its first kernel.
    if _measure(runner, inputs[:1]) == [None]:
        sys.exit("TVM's runner fails on the first kernel, see above")
    began = time.monotonic()
    latencies = _measure(runner, inputs)
    print(json.dumps({"seconds": time.monotonic() - began, "latencies": latencies}))


def _runner(kind: str, port: int) -> Any:
    from tvm.s_tir import meta_schedule as ms

    timing = ms.runner.EvaluatorConfig(**TIMING)
    if kind == "local":
        return ms.runner.LocalRunner(evaluator_config=timing)
    rpc = ms.runner.RPCConfig(tracker_host="127.0.0.1", tracker_port=port, tracker_key=KEY)
    return ms.runner.RPCRunner(rpc, timing, max_workers=1)


def _input(kernel: Built) -> Any:
    from tvm.s_tir import meta_schedule as ms

    infos = [ms.arg_info.TensorInfo(dtype, shape) for shape, dtype in kernel.arguments]
    return ms.runner.RunnerInput(kernel.archive, "cpu", infos)


def _measure(runner: Any, inputs: list[Any]) -> list[float | None]:
    results = [future.result() for future in runner.run(inputs)]
    for one in results:
        if one.error_msg:
            print(one.error_msg, file=sys.stderr)
    return [mean(map(float, one.run_secs)) if one.run_secs else None for one in results]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
