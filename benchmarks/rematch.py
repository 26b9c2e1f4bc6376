"""Times the winners of all runs again, idle and alternating, in one process.

`python rematch.py ROUNDS` reads a JSON list of winners (`duel.Winner`) and prints for each its median latency
in seconds. A round times every kernel once, so that a change of clocks or neighbours meets them all alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from duel import Winner
from fleets import DEVICE_CORE, on

ROUNDS = 9
MIN_REPEAT_MS = 100


def rematch(winners: Sequence[Winner]) -> list[float]:
    """Return the latency of each winner in seconds, measured on the device's core while all else is idle."""
    command = on(DEVICE_CORE, [sys.executable, __file__, str(ROUNDS)])
    asked = json.dumps([asdict(winner) for winner in winners])
    done = subprocess.run(
        command, input=asked, text=True, stdout=subprocess.PIPE, check=True, cwd=Path(__file__).parent
    )
    return [float(value) for value in json.loads(done.stdout.splitlines()[-1])]


def main() -> None:
    os.environ["TVM_NUM_THREADS"] = "1"
    from resonator_hub import warm

    warm.load()
    with tempfile.TemporaryDirectory() as folder:
        kernels = [
            _load(Winner(**raw), Path(folder, f"{number}.so"))
            for number, raw in enumerate(json.load(sys.stdin))
        ]
        latencies: list[list[float]] = [[] for _ in kernels]
        for _ in range(int(sys.argv[1])):
            for (timed, arguments), found in zip(kernels, latencies, strict=True):
                found.append(float(timed(*arguments).results[0]))
    print(json.dumps([median(found) for found in latencies]))


def _load(winner: Winner, library: Path) -> tuple[Any, list[Any]]:
    import tvm

    from resonator_agent.arguments import random
    from resonator_hub.build import Kernel, build

    kernel = build(b64decode(winner.workload), b64decode(winner.trace), winner.target)
    assert isinstance(kernel, Kernel), kernel
    library.write_bytes(kernel.library)
    device = tvm.cpu()
    arguments = [tvm.runtime.tensor(random(list(one.shape), one.dtype), device) for one in kernel.arguments]
    timed = tvm.runtime.load_module(str(library)).time_evaluator(
        "main", device, number=3, repeat=1, min_repeat_ms=MIN_REPEAT_MS
    )
    return timed, arguments


if __name__ == "__main__":
    main()
