"""The demo's hub and agents: real processes on cores of their own, stopped as Ctrl-C would."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from resonator.errors import ResonatorError

GOODBYE_S = 15.0
"""How long a child may take to say goodbye before it is killed."""
_TAIL_LINES = 8


class ChildDied(ResonatorError):
    """A process of the demo ended before its time; the sentence says what it said last."""


class Child:
    """One `resonator` process; its output goes to a log file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    def check(self) -> None:
        """Raise ChildDied if the process has ended."""
        if self._process.returncode is not None:
            said = self.log.read_text(errors="replace").strip().splitlines()[-_TAIL_LINES:]
            raise ChildDied(
                f"the demo's {self.name} ended with exit code {self._process.returncode}; {self.log} ends:\n"
                + "\n".join(said)
            )

    async def stop(self) -> None:
        """Ask the process to end, and end it with all that it started if it does not."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._process.wait(), GOODBYE_S)
            self.kill()

    def kill(self) -> None:
        """End the process, if it still runs, with all that it started."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):  # it has ended, and asyncio has yet to hear of it
                os.killpg(self._process.pid, signal.SIGKILL)

    async def wait(self) -> None:
        """Wait until the process has ended."""
        await self._process.wait()


class Children:
    """The processes of one demo; leaving the context stops them, the last one first."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[Child] = []

    async def start(self, name: str, arguments: Sequence[str], cores: Sequence[int]) -> None:
        """Start `resonator ARGUMENTS` on `cores`, without the user's own settings."""
        log = self._logs / f"{name}.log"
        own = {key: value for key, value in os.environ.items() if not key.startswith("RESONATOR_")}
        with open(log, "wb") as output, pinned(cores):  # noqa: ASYNC230  an empty file on this disk
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "resonator", *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=own,
                start_new_session=True,  # Ctrl-C is for the demo alone, which then stops its children
            )
        self._running.append(Child(name, process, log))

    def check(self) -> None:
        """Raise ChildDied if any of them has ended."""
        for child in self._running:
            child.check()

    async def stop(self) -> None:
        """Stop them all, agents before their hub; interrupted in that, kill those that are left."""
        try:
            for child in reversed(self._running):
                await child.stop()
        finally:
            for child in self._running:
                child.kill()
            for child in self._running:
                await child.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Keep this thread, and the processes it starts meanwhile, on `cores`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
