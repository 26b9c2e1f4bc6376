"""Times built kernels again, idle and alternating, in one process: `python referee.py ROUNDS MIN_REPEAT_MS`.

Reads kernels (`kernel_set.pack`), prints the median latency of each in seconds as a JSON list. Each round
times every kernel once, so that a change of clocks or neighbours meets them all alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from statistics import median

from fleets import DEVICE_CORE, on
from kernel_set import Built, pack, unpack


def latencies(kernels: Sequence[Built], rounds: int, min_repeat_ms: int) -> list[float]:
    """Return the median latency of each kernel in seconds, measured on the device's core."""
    command = on(DEVICE_CORE, [sys.executable, __file__, str(rounds), str(min_repeat_ms)])
    environment = {**os.environ, "TVM_NUM_THREADS": "1", "TVM_USE_RUNTIME_LIB": "1"}
    done = subprocess.run(
        command, input=pack(kernels), text=True, stdout=subprocess.PIPE, check=True, env=environment
    )
    return [float(value) for value in json.loads(done.stdout.splitlines()[-1])]


def main(rounds: int, min_repeat_ms: int) -> None:
    import tvm

    from resonator_agent.arguments import Arguments

    device, arguments = tvm.cpu(), Arguments(2**30)
    timed = []
    for kernel in unpack(sys.stdin.read()):
        library = tvm.runtime.load_module(kernel.library)
        evaluator = library.time_evaluator("main", device, number=3, repeat=1, min_repeat_ms=min_repeat_ms)
        timed.append((evaluator, arguments.get(kernel.arguments, device)))
    found = [[float(evaluator(*given).results[0]) for evaluator, given in timed] for _ in range(rounds)]
    print(json.dumps([median(each) for each in zip(*found, strict=True)]))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
