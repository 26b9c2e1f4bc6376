"""A Dask cluster for tests: a real scheduler and real workers, each a process of its own, on loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from distributed import Client

from fakes.brokers import free_port

WAIT_S = 60.0
TESTS = Path(__file__).parents[1]


@dataclass
class DaskWorker:
    """A worker's process, and the folder in which it keeps what is temporary."""

    process: subprocess.Popen[bytes]
    folder: Path


class DaskCluster:
    """A scheduler, and workers of one thread each; what they log is in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.workers: list[DaskWorker] = []
        self.port = free_port()

    @property
    def address(self) -> str:
        """Where the scheduler is."""
        return f"tcp://127.0.0.1:{self.port}"

    def __enter__(self) -> DaskCluster:
        self._start("scheduler", self._folder, "--port", str(self.port))
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill the scheduler and all workers."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()

    def start_again(self) -> None:
        """Start another scheduler at the same address, and as many workers as there were."""
        count, self.workers = len(self.workers), []
        self._folder = self._folder / "again"
        self._folder.mkdir()
        self._start("scheduler", self._folder, "--port", str(self.port))
        self.add_workers(count)

    def add_workers(self, count: int, python_path: Path | None = None) -> None:
        """Start so many workers, that find Python packages there first; return when they have joined."""
        running = sum(worker.process.poll() is None for worker in self.workers)
        for _ in range(count):
            folder = self._folder / f"worker-{len(self.workers)}"
            folder.mkdir()
            options = (
                "--no-nanny",
                "--nthreads",
                "1",
                "--memory-limit",
                "0",
                "--local-directory",
                str(folder),
            )
            process = self._start("worker", folder, self.address, *options, python_path=python_path)
            self.workers.append(DaskWorker(process, folder))
        with Client(self.address, timeout=WAIT_S, set_as_default=False) as client:
            client.wait_for_workers(running + count, timeout=WAIT_S)

    def _start(
        self, what: str, folder: Path, *options: str, python_path: Path | None = None
    ) -> subprocess.Popen[bytes]:
        paths = ":".join(str(path) for path in (python_path, TESTS) if path)
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--host", "127.0.0.1", *options]
        with open(folder / f"{what}.log", "wb") as log:
            process = subprocess.Popen(
                [*command, "--dashboard-address", "127.0.0.1:0"],
                stdout=log,
                stderr=log,
                cwd=folder,
                env=os.environ | {"PYTHONPATH": paths, "TMPDIR": str(folder)},
            )
        self._processes.append(process)
        return process


class CountingRelay:
    """A relay in front of a scheduler that counts what passes, in bytes, both ways."""

    def __init__(self, port: int) -> None:
        self.count = 0
        self._counting = threading.Lock()
        relay = self

        class Connection(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection(("127.0.0.1", port)) as far:
                    back = threading.Thread(target=relay._pump, args=(far, self.request))
                    back.start()
                    relay._pump(self.request, far)
                    back.join()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection)
        self._serving = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def address(self) -> str:
        """Where the scheduler seems to be."""
        return f"tcp://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> CountingRelay:
        self._serving.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._serving.join()
        self._server.server_close()  # waits for the connections, which their client has closed

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                with self._counting:
                    self.count += len(data)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
