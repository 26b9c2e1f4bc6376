"""Real processes of the `resonator` command, and a job for them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from fakes import dying
from resonator.jobspec import Budget, JobBody, Measure, Metadata, ModelSpec, TargetSpec, TuningJob

LONG_S = 120.0


def small_order(trials: int) -> TuningJob:
    """Return a job for a small model that any CPU tunes in seconds."""
    body = JobBody(
        model=ModelSpec(onnx="small.onnx"),
        target=TargetSpec(kind="cpu"),
        budget=Budget(trials=trials),
        measure=Measure(number=1, repeat=2, min_repeat_ms=10),
    )
    return TuningJob(metadata=Metadata(name="small"), spec=body)


class Program:
    """A `resonator` command in a process of its own, whose log is read all the time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log = ""
        self._silent = False
        self._news = asyncio.Condition()
        self._reading = asyncio.ensure_future(self._read())

    @staticmethod
    def command(*arguments: str, doom: Sequence[str] = ()) -> list[str]:
        """Return the command line of `resonator ARGUMENTS`, killed where `doom` says (`fakes.dying`)."""
        if doom:
            return [sys.executable, str(dying.__file__), *doom, *arguments]
        return [sys.executable, "-c", "from resonator.cli.main import main; main()", *arguments]

    @classmethod
    async def start(
        cls, folder: Path, *arguments: str, doom: Sequence[str] = (), within: Sequence[str] = ()
    ) -> Program:
        """Run `resonator ARGUMENTS` in a folder; `within` is a command that runs another one elsewhere."""
        config = folder / "none.toml"
        config.touch()
        return cls(
            await asyncio.create_subprocess_exec(
                *within,
                *cls.command(*arguments, doom=doom),
                stderr=asyncio.subprocess.PIPE,
                cwd=folder,
                env={**os.environ, "RESONATOR_CONFIG": str(config), "RESONATOR_HUB_CONFIG": str(config)},
            )
        )

    async def logged(self, text: str, count: int = 1) -> None:
        """Wait until `text` was logged, `count` times; fails when the process has ended before."""

        def settled() -> bool:
            return self.log.count(text) >= count or self._silent

        async with self._news:
            await asyncio.wait_for(self._news.wait_for(settled), LONG_S)
        assert self.log.count(text) >= count, f"it has ended and never logged {text!r}:\n{self.log[-4000:]}"

    async def end(self, number: signal.Signals) -> int:
        """Send a signal, and return the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Wait until the process has ended, and return the exit code."""
        code = await asyncio.wait_for(self.process.wait(), LONG_S)
        await self._reading
        return code

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            async with self._news:
                self.log += line.decode()
                self._news.notify_all()
        async with self._news:
            self._silent = True
            self._news.notify_all()
