"""A machine with one program on it, which is started again whenever it ends, as systemd does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from simulation.world.disk import Disk
from simulation.world.patches import EPOCH_S
from simulation.world.process import WORLD, Killed, Process
from simulation.world.wire import PATIENCE

if TYPE_CHECKING:
    from simulation.world.fleet import World

RESTART_S = 5.0
"""The units' `RestartSec`."""
Program = Callable[[Process], Coroutine[Any, Any, object]]


class Host:
    """Its wall clock is `offset_s` ahead of the world's; `process` is the present life of its program."""

    def __init__(self, world: World, name: str, program: Program) -> None:
        self.world = world
        self.name = name
        self.offset_s = 0.0
        self.disk = Disk(world.moment, world.watch.written)
        self.process: Process | None = None
        self.wanted = False
        self.lives = 0
        self.slept_until = -1.0
        self.at_power_cut: list[Callable[[], None]] = []
        self._program = program
        self._starting: asyncio.TimerHandle | None = None

    def wall(self) -> float:
        """Return what the host's clock on the wall shows."""
        return EPOCH_S + self.offset_s + asyncio.get_running_loop().time()

    def boot(self) -> None:
        """Start the program, if it does not run."""
        self._starting = None
        if self.process is not None and self.process.alive:
            return
        if self.process is not None:
            self.process.bury()
        self.wanted = True
        self.lives += 1
        process = self.process = Process(self.name, self.wall)
        process.start(self._live(process))

    def kill(self, for_s: float) -> None:
        """End the program as `kill -9` does, and start it again some seconds later."""
        if self.process is not None and self.process.alive:
            self.process.stopped = False
            self.process.kill()
        self._start_in(for_s)

    def power_cut(self, for_s: float) -> None:
        """End the program, and lose what was written but not waited for."""
        self.kill(for_s)
        for lose in self.at_power_cut:
            lose()

    def stop(self, for_s: float) -> None:
        """Halt the program as SIGSTOP does, for some seconds."""
        process, loop = self.process, asyncio.get_running_loop()
        if process is None or not process.alive or process.stopped:
            return
        process.stopped = True
        self.slept_until = loop.time() + for_s
        for wire in self.world.network.of(self.name):
            for end in wire.ends:
                loop.call_later(PATIENCE * end.keepalive_s, self._silent, process, end.silent_for_broker)
        loop.call_later(for_s, self._go_on, process)

    def retire(self) -> None:
        """End the program for good."""
        self.wanted = False
        if self.process is not None:
            self.process.kill()

    def _silent(self, process: Process, tell: Callable[[], None]) -> None:
        if process.alive and process.stopped:
            tell()

    def _go_on(self, process: Process) -> None:
        if process.alive and process.stopped:
            self.world.loop.resume(process)

    async def _live(self, process: Process) -> None:
        """Run the program to its end, whatever that is."""
        try:
            outcome = await self._program(process)
        except Killed:
            return
        except Exception as error:
            self._ended(process, f"{type(error).__name__}: {error}", error)
        else:
            self._ended(process, f"exit {outcome}", None)

    def _ended(self, process: Process, how: str, error: Exception | None) -> None:
        if not process.alive:
            return
        process.kill()
        self.world.program_ended(self, how, error)
        self._start_in(RESTART_S)

    def _start_in(self, seconds: float) -> None:
        if not self.wanted:
            return
        loop = asyncio.get_running_loop()
        if self._starting is not None:
            self._starting.cancel()
        self._starting = loop.call_later(seconds, self.boot, context=WORLD)
