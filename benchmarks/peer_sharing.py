"""TVM's local runner measuring one kernel on a core, alone and while a second job's runner has the same core.

`python peer_sharing.py FOLDER TIMES ROUNDS` takes kernels of `mixed_kernels`: the first is measured, the
second job has the others. Prints JSON: latencies in seconds, `shared`, and `alone` before, between and after.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import mixed_kernels
from peer_runners import local_runner, measure, runner_input


def main(folder: Path, times: int, rounds: int) -> None:
    from resonator_hub import warm

    warm.load()
    fixed, *others = [
        runner_input(f"{folder}/{number}.tar", [(list(spec.shape), spec.dtype) for spec in kernel.arguments])
        for number, kernel in enumerate(mixed_kernels.read(folder).kernels)
    ]
    runner, rival = local_runner(), local_runner()
    measure(runner, [fixed])  # its worker imports TVM at its first kernel
    found = {"alone": [measure(runner, [fixed] * times)], "shared": []}
    for _ in range(rounds):
        with _Rival(rival, others):
            found["shared"].append(measure(runner, [fixed] * times))
        found["alone"].append(measure(runner, [fixed] * times))
    print(json.dumps(found))


class _Rival:
    """The second job: measures one kernel after the other until the block ends."""

    def __init__(self, runner: Any, inputs: list[Any]) -> None:
        self._runner = runner
        self._inputs = inputs
        self._under_way, self._enough = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()
        self._under_way.wait()

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._enough.is_set():
            for one in self._inputs:
                measure(self._runner, [one])
                self._under_way.set()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
