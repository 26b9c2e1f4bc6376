"""An edge box: the real agent on a simulated bus, profiler and disk."""

from __future__ import annotations

import asyncio
import random
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakes.shell import identity
from resonator.bus.backoff import Backoff
from resonator.bus.mqtt import MqttBus
from resonator.bus.peer import Peer
from resonator.messages import Identity
from resonator_agent.bootstrap import awakened, last_will
from resonator_agent.events import Event, Outcome
from resonator_agent.machine import Machine
from resonator_agent.runtime import Agent, Parts, Settings
from resonator_agent.worker_process import Limits
from simulation.world.chance import stream
from simulation.world.disk import AgentMemory, AgentOutbox, Blobs
from simulation.world.host import Host
from simulation.world.process import Process
from simulation.world.profiling import Measurement, SimulatedProfiler

if TYPE_CHECKING:
    from simulation.world.fleet import World

CREDIT = 300_000
LIMITS = Limits(cores=(1,), memory=2**30, max_foreign_load=0.5)


class Box:
    """One box of a site; `kind` tells kinds of hardware apart."""

    def __init__(self, world: World, site: str, name: str, kind: str, folder: Path) -> None:
        self.world, self.site = world, site
        self.name = f"{site}/{name}"
        self.host = Host(world, f"{site}.{name}", self.run)
        self.identity: Identity = identity(cpu_model=kind)
        self.profiler: SimulatedProfiler | None = None
        self.outbox: AgentOutbox | None = None
        self.agent: Agent | None = None
        self._settings = Settings(name, site, f"mqtt://{site}:1883", folder, LIMITS)
        self._random = stream(world.seed, f"box {self.name}")

    async def run(self, process: Process) -> int:
        """Be an agent from its start to its end."""
        watch, state, disk = self.world.watch, self._settings.state, self.host.disk
        process.at_death.append(partial(watch.crashed, self.name))
        memory = AgentMemory(state, disk, partial(watch.window, self.name))
        process.at_death.append(memory.release)
        outbox = self.outbox = AgentOutbox(state / "outbox.sqlite", disk, watch.keeps, watch.forgets)
        process.at_death.append(outbox.close)
        self.host.at_power_cut[:] = [outbox.lose_power]
        machine = awakened(self.identity, memory, credit=CREDIT)
        self._look_into(machine)
        bus = MqttBus(
            self._settings.broker,
            client_id=f"agent-{self._settings.source}-{machine.bearer.instance}",
            will=partial(last_will, self._settings, machine),
            backoff=Backoff(random=random.Random(self._random.random())),
        )
        shutil.rmtree(state / "blobs", ignore_errors=True)
        self.profiler = SimulatedProfiler(
            self.name, self._random, self.world.serial, watch.begins, partial(self._ends, process)
        )
        parts = Parts(
            machine,
            memory,
            outbox,
            Blobs(state / "blobs", disk),
            Peer(bus, self._settings.source),
            self.profiler,
        )
        self.agent = Agent(self._settings, parts)
        return await self.agent.run()

    @property
    def pending(self) -> int:
        """How many messages wait for the hub's acknowledgement."""
        return 0 if self.outbox is None or not self.alive else len(self.outbox)

    @property
    def alive(self) -> bool:
        """Whether the agent runs."""
        return self.host.process is not None and self.host.process.alive

    def _look_into(self, machine: Machine) -> None:
        """Have the judge know until when a window lasts."""
        step, watch, name = machine.step, self.world.watch, self.name

        def watched(event: Event) -> list[Any]:
            commands = step(event)
            if machine.window is not None:
                watch.leased(name, machine.window.grant.epoch, machine.window.expires)
            return commands

        setattr(machine, "step", watched)  # noqa: B010 - it is the agent's own machine otherwise

    def _ends(self, process: Process, run: Measurement, outcome: Outcome | None) -> None:
        if process.alive:
            now = asyncio.get_running_loop().time()
            slept = self.host.slept_until >= run.began or self.host.slept_until >= now
            self.world.watch.ends(run, outcome, asleep=slept)
