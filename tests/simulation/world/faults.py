"""What goes wrong in a world: an explicit list, drawn from its seed, of which a part can be left out."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulation.world.bridge import QUEUE
from simulation.world.network import CLOUD
from simulation.world.wire import Mischief, Wire

if TYPE_CHECKING:
    from simulation.world.fleet import World
    from simulation.world.host import Host

MOMENTS = {
    "hub": ("commit", "committed", "publish", "blob"),
    "box": ("outbox", "kept", "memory", "remembered", "acknowledge", "publish"),
}
"""The steps at which a process may be killed: just before it does something lasting, or just after."""


@dataclass(frozen=True)
class Fault:
    """Something goes wrong `at` seconds, for `for_s` seconds; `amount` says how much, where that matters.

    A fault with a `moment` waits from `at` on for that step of its target, the `amount`th.
    """

    at: float
    kind: str
    target: str
    for_s: float = 0.0
    amount: float = 0.0
    moment: str = ""

    def __str__(self) -> str:
        when = f"at its {self.amount:.0f}. {self.moment}" if self.moment else f"for {self.for_s:.1f} s"
        much = f", {self.amount:.3g}" if self.amount and not self.moment else ""
        return f"{self.at:8.1f}  {self.kind} {self.target} {when}{much}"


def draw(chance: random.Random, boxes: Sequence[str], sites: Sequence[str], within_s: float) -> list[Fault]:
    """Draw a plan of faults for a fleet."""
    hosts = ["hub", *boxes]
    brokers = [CLOUD, *sites]
    ways: list[Callable[[float], Fault]] = [
        lambda at: Fault(at, "kill", chance.choice(hosts), chance.uniform(0.1, 30)),
        lambda at: Fault(at, "kill", "hub", chance.uniform(0.1, 90)),
        lambda at: _at_a_moment(chance, at, hosts),
        lambda at: _at_a_moment(chance, at, hosts),
        lambda at: Fault(at, "stop", chance.choice(hosts), chance.choice([3, 20, 70, 400])),
        lambda at: Fault(at, "kill broker", chance.choice(brokers), chance.uniform(0.5, 60)),
        lambda at: Fault(at, "stop broker", chance.choice(brokers), chance.uniform(5, 200)),
        lambda at: Fault(at, "cut box", chance.choice(boxes), chance.uniform(1, 200)),
        lambda at: Fault(at, "cut hub", "hub", chance.uniform(1, 200)),
        lambda at: Fault(at, "mischief", chance.choice([*boxes, "hub"]), chance.uniform(20, 200), 0.3),
        lambda at: Fault(at, "kill profiler", chance.choice(boxes)),
        lambda at: Fault(at, "drain", chance.choice(boxes)),
        lambda at: Fault(at, "power cut", chance.choice(hosts), chance.uniform(1, 60)),
        lambda at: Fault(at, "power cut", "hub", chance.uniform(1, 60)),
        lambda at: Fault(at, "another hub", "hub", chance.uniform(10, 120), chance.choice([0, 1])),
        lambda at: Fault(at, "full", chance.choice(hosts), chance.uniform(1, 100)),
        lambda at: Fault(at, "database gone", "hub", chance.uniform(1, 100)),
        lambda at: Fault(at, "clock", chance.choice(hosts), 0.0, chance.choice([-1, 1]) * _jump(chance)),
    ]
    if sites:
        ways += [
            lambda at: Fault(at, "cut site", chance.choice(sites), chance.choice([40, 300, 2000, 9000])),
            lambda at: Fault(at, "cut site", chance.choice(sites), chance.uniform(2, 60)),
            lambda at: Fault(at, "mischief", chance.choice(sites), chance.uniform(20, 200), 0.3),
            lambda at: Fault(
                at, "short queue", chance.choice(sites), chance.uniform(30, 600), chance.choice([0, 3, 10])
            ),
            lambda at: Fault(at, "slow site", chance.choice(sites), chance.uniform(20, 200), 50.0),
        ]
    count = chance.randint(3, 10)
    return sorted(
        (chance.choice(ways)(chance.uniform(1, within_s)) for _ in range(count)), key=lambda f: f.at
    )


def _jump(chance: random.Random) -> float:
    return chance.choice([1.0, 60.0, 7200.0, 1e6])


def _at_a_moment(chance: random.Random, at: float, hosts: Sequence[str]) -> Fault:
    target = chance.choice(["hub", chance.choice(hosts)])
    moment = chance.choice(MOMENTS["hub" if target == "hub" else "box"])
    return Fault(at, "kill", target, chance.uniform(0.1, 30), chance.randint(1, 15), moment)


class Weather:
    """Has the faults of a plan happen in a world."""

    def __init__(self, world: World, plan: Sequence[Fault]) -> None:
        self._world = world
        self._waiting: list[list[object]] = []
        self.plan = plan
        self._counts: dict[Fault, int] = {}

    def begin(self) -> None:
        """Have each fault happen when it is due."""
        for fault in self.plan:
            self._world.loop.call_at(fault.at, self._happen, fault)

    def moment(self, host: str, moment: str) -> Fault | None:
        """Return the fault by which a process dies at this step, if there is one."""
        for fault in list(self._counts):
            if (fault.target, fault.moment) == (host, moment):
                self._counts[fault] += 1
                if self._counts[fault] >= fault.amount:
                    del self._counts[fault]
                    return fault
        return None

    def clear(self) -> None:
        """What waits for its moment does not happen any more."""
        self._counts.clear()

    def _happen(self, fault: Fault) -> None:
        world = self._world
        if fault.moment:
            self._counts[fault] = 0
            return
        world.watch.tell(f"FAULT {str(fault).strip()}")
        _ACTS[fault.kind](world, fault)


def _later(world: World, fault: Fault, undo: Callable[..., None], *arguments: object) -> None:
    world.loop.call_later(fault.for_s, undo, *arguments)


def _kill(world: World, fault: Fault) -> None:
    world.hosts[fault.target].kill(fault.for_s)


def _power_cut(world: World, fault: Fault) -> None:
    world.hosts[fault.target].power_cut(fault.for_s)


def _another_hub(world: World, fault: Fault) -> None:
    """Started by mistake, with a disk of its own; of the same name where there is an `amount`."""
    twin = world.begin_twin(same_name=bool(fault.amount))
    _later(world, fault, twin.host.retire)


def _stop(world: World, fault: Fault) -> None:
    world.hosts[fault.target].stop(fault.for_s)


def _kill_broker(world: World, fault: Fault) -> None:
    world.network.kill(fault.target)
    _later(world, fault, world.network.brokers[fault.target].rise)


def _cut(world: World, fault: Fault, wires: Sequence[Wire]) -> None:
    for wire in wires:
        wire.cut()
        _later(world, fault, wire.mend)


def _cut_all(world: World, fault: Fault) -> None:
    """Of a host or broker; a stopped broker is one that nothing comes from or gets to."""
    _cut(world, fault, world.network.of(fault.target))


def _cut_site(world: World, fault: Fault) -> None:
    _cut(world, fault, [world.network.bridges[fault.target].up.wire])


def _mischief(world: World, fault: Fault) -> None:
    wires = world.network.of(fault.target)
    for wire in wires:
        wire.mischief = Mischief(fault.amount, fault.amount, fault.amount)
        _later(world, fault, setattr, wire, "mischief", Mischief())


def _slow(world: World, fault: Fault) -> None:
    wire = world.network.bridges[fault.target].up.wire
    wire.slow = fault.amount
    _later(world, fault, setattr, wire, "slow", 1.0)


def _short_queue(world: World, fault: Fault) -> None:
    bridge = world.network.bridges[fault.target]
    for channel in (bridge.up, bridge.down):
        _later(world, fault, setattr, channel, "limit", QUEUE)
        channel.limit = int(fault.amount)


def _full(world: World, fault: Fault) -> None:
    disk = _host(world, fault).disk
    disk.full = True
    _later(world, fault, setattr, disk, "full", False)


def _database_gone(world: World, fault: Fault) -> None:
    disk = _host(world, fault).disk
    disk.gone = True
    _later(world, fault, setattr, disk, "gone", False)


def _clock(world: World, fault: Fault) -> None:
    _host(world, fault).offset_s += fault.amount


def _drain(world: World, fault: Fault) -> None:
    world.drain(fault.target)


def _kill_profiler(world: World, fault: Fault) -> None:
    world.kill_profiler(fault.target)


def _host(world: World, fault: Fault) -> Host:
    return world.hosts[fault.target]


_ACTS: dict[str, Callable[[World, Fault], None]] = {
    "kill": _kill,
    "power cut": _power_cut,
    "another hub": _another_hub,
    "stop": _stop,
    "kill broker": _kill_broker,
    "stop broker": _cut_all,
    "cut box": _cut_all,
    "cut hub": _cut_all,
    "cut site": _cut_site,
    "mischief": _mischief,
    "short queue": _short_queue,
    "slow site": _slow,
    "kill profiler": _kill_profiler,
    "drain": _drain,
    "full": _full,
    "database gone": _database_gone,
    "clock": _clock,
}
