"""All brokers, and the wires between them and their clients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from simulation.world.bridge import Bridge
from simulation.world.broker import Broker
from simulation.world.chance import stream
from simulation.world.connection import Connection
from simulation.world.wire import Wire

CLOUD = "cloud"
"""What the hub's broker is called."""


class Network:
    """Brokers by name, wires by what they join; `moment` hears of every step that a process takes on it."""

    def __init__(
        self, seed: int, moment: Callable[[str], None], heard: Callable[[str, str, bytes], None]
    ) -> None:
        self._seed = seed
        self.moment = moment
        self._heard = heard
        self.brokers: dict[str, Broker] = {CLOUD: Broker(CLOUD, heard)}
        self.bridges: dict[str, Bridge] = {}
        self.wires: dict[str, Wire] = {}
        self.connection = partial(Connection, self)

    def add_site(self, site: str) -> Bridge:
        """Make a site's broker, and its bridge to the hub's."""
        broker = self.brokers[site] = Broker(site, self._heard)
        wire = self.wire(site, CLOUD, slowest_s=0.2)
        bridge = self.bridges[site] = Bridge(site, broker, self.brokers[CLOUD], wire)
        return bridge

    def wire(self, one: str, other: str, *, slowest_s: float = 0.02) -> Wire:
        """Return the wire between two, made at first use."""
        name = f"{one}-{other}"
        found = self.wires.get(name)
        if found is None:
            chance = stream(self._seed, f"wire {name}")
            found = self.wires[name] = Wire(name, chance.uniform(0.001, slowest_s), chance)
        return found

    def kill(self, name: str) -> None:
        """End a broker as `kill -9` does."""
        self.brokers[name].die()
        for site, bridge in self.bridges.items():
            if name in (site, CLOUD):
                bridge.broken()

    def of(self, name: str) -> list[Wire]:
        """Return the wires of a host or broker."""
        return [wire for wire in self.wires.values() if name in wire.name.split("-")]
