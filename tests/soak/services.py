"""Processes that are started again whenever they end, as systemd does; what each life said is kept."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fakes.programs import Program

RESTART_S = 1.0
"""How long a service is down before it is started again."""


@dataclass(frozen=True)
class Death:
    """How a life ended: `code` is the exit code, `last_words` the end of its log."""

    service: str
    at: float
    code: int
    asked_for: bool
    last_words: str

    @property
    def is_accident(self) -> bool:
        """Whether it ended in a way that nobody designed."""
        return not self.asked_for and "Traceback" in self.last_words


class Service:
    """One `resonator` command, kept running; `lives` are its programs, the present or last one at the end."""

    def __init__(self, name: str, folder: Path, arguments: Sequence[str], within: Sequence[str] = ()) -> None:
        self.name = name
        self.lives: list[Program] = []
        self.deaths: list[Death] = []
        self.arguments = arguments
        self._folder, self._within = folder, within
        self._ending = False
        self._killing = False
        self._keeping: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        return self.lives[-1].process.pid

    @property
    def is_alive(self) -> bool:
        return bool(self.lives) and self.lives[-1].process.returncode is None

    async def start(self) -> None:
        """Start, and have it kept running; return when it is connected to its broker."""
        self._keeping = asyncio.create_task(self._keep(), name=self.name)
        while not self.lives:
            await asyncio.sleep(0.01)

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; return whether there was somebody to hear it."""
        if not self.is_alive:
            return False
        self._killing = number is signal.SIGKILL
        with contextlib.suppress(ProcessLookupError):
            self.lives[-1].process.send_signal(number)
            return True
        return False

    async def end(self, within_s: float) -> int | None:
        """Have it end for good, as by Ctrl-C; return the exit code, None if it had to be killed."""
        self._ending = True
        code = None
        if self.is_alive:
            self.signal(signal.SIGINT)
            with contextlib.suppress(asyncio.TimeoutError):
                code = await asyncio.wait_for(self.lives[-1].process.wait(), within_s)
            if code is None:
                self.signal(signal.SIGKILL)
        if self._keeping is not None:
            await self._keeping
        return code

    async def _keep(self) -> None:
        while not self._ending:
            program = await Program.start(self._folder, *self.arguments, within=self._within)
            self.lives.append(program)
            code = await program.process.wait()
            await program.ended()
            asked, self._killing = self._ending or self._killing, False
            self.deaths.append(Death(self.name, time.time(), code, asked, program.log[-3000:]))
            if not self._ending:
                await asyncio.sleep(RESTART_S)
