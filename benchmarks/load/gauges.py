"""What processes take, and what they tell of themselves: a line of JSON on standard output each second."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")


def allow_sockets() -> None:
    """Let this process, and those that it starts, have as many open files as the system lets anybody have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def print_each_second(told: Callable[[], dict[str, object]]) -> None:
    """Print what `told` returns, with the time by the clock that all processes of a machine share."""
    while True:
        await asyncio.sleep(1.0)
        print(json.dumps({"at": time.monotonic(), **told()}), flush=True)


def quantiles(values: list[float]) -> list[float]:
    """Return count, median, 99th percentile and maximum, or zeros."""
    if not values:
        return [0, 0.0, 0.0, 0.0]
    ranked = sorted(values)
    return [len(ranked), ranked[len(ranked) // 2], ranked[int(len(ranked) * 0.99)], ranked[-1]]


@dataclass(frozen=True)
class Taken:
    """What a process has taken: processor seconds since its start, and megabytes it holds now."""

    cpu_s: float
    resident_mb: float


def taken(pid: int) -> Taken:
    """Look at a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS
    return Taken(cpu_s, pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


class Teller:
    """A process that prints a line of JSON each second; `latest` is the last one."""

    def __init__(self, command: Sequence[str], folder: Path, log: Path) -> None:
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=folder
            )
        self.latest: dict[str, Any] = {}
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self, fulfilled: Callable[[dict[str, Any]], bool], patience_s: float) -> dict[str, Any]:
        """Return the first line that fulfils a condition; raises TimeoutError, also if the process ends."""
        deadline = time.monotonic() + patience_s
        with self._news:
            while not (self.latest and fulfilled(self.latest)):
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise TimeoutError(f"{self.process.args!r} told at last: {self.latest}")
                self._news.wait(1.0)
            return self.latest

    def next(self) -> dict[str, Any]:
        """Wait for a new line."""
        before = self.latest
        return self.wait(lambda line: line is not before, 30.0)

    def end(self) -> dict[str, Any]:
        """Ask the process to leave, and return its last line."""
        self.process.terminate()
        self.process.wait(60)
        self.close()
        return self.latest

    def close(self) -> None:
        """End the process if it still runs, and let go of what it told."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told = json.loads(line)
            with self._news:
                self.latest = told
                self._news.notify_all()
