"""A Dask cluster for tests: a real scheduler and real workers, each a process of its own, on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from distributed import Client

from fakes.brokers import free_port

WAIT_S = 60.0
TESTS = Path(__file__).parents[1]


class DaskCluster:
    """A scheduler, and workers of one thread each; what they log is in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.address = f"tcp://127.0.0.1:{free_port()}"

    def __enter__(self) -> DaskCluster:
        self._start("scheduler", "--host", "127.0.0.1", "--port", self.address.rpartition(":")[2])
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()

    def add_workers(self, count: int) -> list[subprocess.Popen[bytes]]:
        """Start so many workers and return their processes when they have joined."""
        options = (
            "--local-directory",
            str(self._folder),
            "--no-nanny",
            "--nthreads",
            "1",
            "--memory-limit",
            "0",
            "--host",
            "127.0.0.1",
        )
        began = [self._start("worker", self.address, *options) for _ in range(count)]
        with Client(self.address, timeout=WAIT_S, set_as_default=False) as client:
            known = len(client.scheduler_info()["workers"])
            client.wait_for_workers(max(known, count), timeout=WAIT_S)
        return began

    def _start(self, what: str, *options: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            f"distributed.cli.dask_{what}",
            *options,
            "--dashboard-address",
            "127.0.0.1:0",
        ]
        with open(self._folder / f"{what}-{len(self._processes)}.log", "wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=os.environ | {"PYTHONPATH": str(TESTS)},
            )
        self._processes.append(process)
        return process
