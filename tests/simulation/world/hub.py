"""A hub in the simulated world: the real one, but for its bus, its compute and its disk."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

from resonator.bus.backoff import Backoff
from resonator.bus.mqtt import MqttBus
from resonator_hub.bootstrap import _until_ended
from resonator_hub.database import Database
from resonator_hub.hub import Hub, Identity
from resonator_hub.inbox import Clock
from resonator_hub.journal import Journal
from resonator_hub.keeper import KEEP_S
from resonator_hub.leadership import origin
from resonator_hub.rules import Rules, began
from simulation.world import disk
from simulation.world.chance import stream
from simulation.world.computing import SlowCompute
from simulation.world.host import Host
from simulation.world.network import CLOUD
from simulation.world.process import Process

if TYPE_CHECKING:
    from simulation.world.fleet import World

SITE = "local"


class SimulatedHub:
    """A hub at the cloud's broker, on a host and with a state directory of its own."""

    def __init__(self, world: World, host: str, name: str, folder: Path, rules: Rules) -> None:
        self.world, self.name = world, name
        self.host = Host(world, host, self.run)
        self.blobs = disk.Blobs(folder / "blobs", self.host.disk)
        self.hub: Hub | None = None
        self._rules = rules
        self._keep_s = stream(world.seed, "keep").choice([0.0, 30.0, KEEP_S])
        self._shared = stream(world.seed, "database").random() < 0.5
        self._random = stream(world.seed, f"hub {host}")
        self.database = world.databases.create(host, self.host.disk)
        self.database.careful = any(fault.kind == "power cut" for fault in world.weather.plan)
        self.database.settle()
        self.host.at_power_cut.append(self.database.lose_power)

    def records(self) -> dict[str, tuple[float, ...]]:
        """Return the latencies of each candidate on record."""
        rows = self.database.execute("SELECT candidate, latencies FROM records ORDER BY record")
        return {candidate: tuple(json.loads(latencies)) for candidate, latencies in rows}

    async def run(self, process: Process) -> None:
        """Be a hub from its start to its end, as `resonator_hub.bootstrap` puts it together."""
        database = disk.SharedDatabase(disk.engine()) if self._shared else Database(disk.engine())
        process.at_death.append(self.database.rollback)
        stop = asyncio.Event()
        journal = Journal(database)
        slots, rules = 2, began(journal) or self._rules
        session = journal.length() + int(1000 * Clock(not_before=journal.last_at()).now())
        identity = Identity(SITE, self.name, session, slots, rules, origin=origin(database))
        backoff = Backoff(random=random.Random(self._random.random()))
        bus = MqttBus(
            f"mqtt://{CLOUD}:1883", client_id=f"hub-{self.name}", will=identity.will, backoff=backoff
        )
        compute = SlowCompute(self._random, slots)
        hub = self.hub = Hub(identity, bus, compute, database, self.blobs, keep_s=self._keep_s)
        await hub.prepare()
        hub.observe(self.world.watch)
        self._remembers(hub)
        async with bus:
            await _until_ended(hub.run(stop), database)

    def _remembers(self, hub: Hub) -> None:
        """Nothing that was accepted may be unknown after a restart."""
        if self.world.watch.hubs > 1:
            return  # it may have been another one that accepted it
        known = {status.job for status in hub.scheduler.statuses(1000)}
        for job in self.world.watch.accepted.keys() - known:
            self.world.watch.violated(f"{self.name} has forgotten the accepted job {job}")
