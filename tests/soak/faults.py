"""What is done to a town: every kind of fault harms one target, for a while, and mends it again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fakes.link import DSL
from fakes.programs import Program
from fakes.sites import PlacedBroker
from soak.services import Service
from soak.town import Town

Harm = Callable[[Town, str, float], Awaitable[None]]
"""Does harm to a target for so many seconds, and mends it."""
_REFUSED_WITHIN_S = 60.0


class Unharmed(Exception):
    """There was nothing to harm at that moment, such as a process that is down anyway."""


@dataclass(frozen=True)
class Kind:
    """One kind of fault: on whom, for how long (seconds, least and most), and how often beside others."""

    name: str
    targets: Callable[[Town], list[str]]
    harm: Harm
    lasts_s: tuple[float, float] = (0.0, 0.0)
    weight: int = 1


async def kill_service(town: Town, target: str, _seconds: float) -> None:
    """Kill -9; whoever keeps it running starts it again."""
    _required(_service(town, target).signal(signal.SIGKILL))


async def freeze_service(town: Town, target: str, seconds: float) -> None:
    """SIGSTOP, and SIGCONT after a while."""
    await _freeze(_service(town, target).pid, seconds)


async def kill_profiler(town: Town, target: str, _seconds: float) -> None:
    """Kill the process that runs kernels, under its agent."""
    _kill_child(_service(town, target).pid, "profiler_worker")


async def kill_worker(town: Town, target: str, _seconds: float) -> None:
    """Kill a process in which the hub searches, builds or compiles."""
    _kill_child(_service(town, target).pid, "")


async def fill_disk(town: Town, target: str, seconds: float) -> None:
    """Fill the disk with the state of a hub or a box."""
    disk = town.disks[target]
    disk.fill()
    try:
        await asyncio.sleep(seconds)
    finally:
        disk.free()


async def second_hub(town: Town, target: str, _seconds: float) -> None:
    """Start one more hub on the state directory of another: it has to refuse."""
    service = _service(town, target)
    _required(service.is_alive)
    second = await Program.start(town.fed.folder, *service.arguments)
    try:
        code = await asyncio.wait_for(second.process.wait(), _REFUSED_WITHIN_S)
    finally:
        await second.end(signal.SIGKILL)
    if "in use by another hub" not in second.log and service.is_alive:
        raise AssertionError(f"a second hub on one state directory ended with {code}: {second.log[-1000:]}")


async def kill_broker(town: Town, target: str, seconds: float) -> None:
    """Kill -9 a Mosquitto, and start it again on what it has kept."""
    broker = _broker(town, target)
    await broker.end(signal.SIGKILL)
    await asyncio.sleep(seconds)
    await broker.start()


async def restart_broker(town: Town, target: str, seconds: float) -> None:
    """Stop a Mosquitto in order, and start it again."""
    broker = _broker(town, target)
    await broker.end()
    await asyncio.sleep(seconds)
    await broker.start()


async def freeze_broker(town: Town, target: str, seconds: float) -> None:
    """SIGSTOP a Mosquitto for a while."""
    await _freeze(_broker(town, target).pid, seconds)


async def cut_link(town: Town, target: str, seconds: float) -> None:
    """Break the connection between a site and the cloud, and refuse new ones."""
    link = town.fed.sites[target].link
    link.cut()
    await asyncio.sleep(seconds)
    await link.restore()


async def silence_link(town: Town, target: str, seconds: float) -> None:
    """Have all that is sent between a site and the cloud vanish without a word."""
    link = town.fed.sites[target].link
    link.silence()
    await asyncio.sleep(seconds)
    await link.restore()


async def slow_link(town: Town, target: str, seconds: float) -> None:
    """Make a site's link slow: latency, loss, 1 Mbit/s."""
    link = town.fed.sites[target].link
    link.slow(DSL)
    await asyncio.sleep(seconds)
    await link.restore()


async def kill_database(town: Town, _target: str, seconds: float) -> None:
    """Kill -9 PostgreSQL with all its children, and start it again."""
    assert town.postgres is not None
    await asyncio.to_thread(town.postgres.kill)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(town.postgres.start)


async def disconnect_database(town: Town, _target: str, _seconds: float) -> None:
    """Cut every connection to PostgreSQL."""
    assert town.postgres is not None
    await asyncio.to_thread(town.postgres.disconnect_all)


def _hubs(town: Town) -> list[str]:
    return list(town.hubs)


def _hub_disks(town: Town) -> list[str]:
    return [name for name in town.disks if name not in _boxes(town)]


def _boxes(town: Town) -> list[str]:
    return [str(device) for device in town.boxes]


def _sites(town: Town) -> list[str]:
    return list(town.fed.sites)


def _brokers(town: Town) -> list[str]:
    return ["cloud", *town.fed.sites]


def _databases(town: Town) -> list[str]:
    return ["postgresql"] if town.postgres else []


KINDS = (
    Kind("hub killed", _hubs, kill_service, weight=3),
    Kind("hub stopped", _hubs, freeze_service, (5, 60)),
    Kind("hub's worker killed", _hubs, kill_worker, weight=2),
    Kind("hub's disk full", _hub_disks, fill_disk, (5, 30)),
    Kind("second hub started", _hubs, second_hub),
    Kind("box killed", _boxes, kill_service, weight=3),
    Kind("box stopped", _boxes, freeze_service, (5, 90), weight=2),
    Kind("profiler killed", _boxes, kill_profiler, weight=2),
    Kind("box's disk full", _boxes, fill_disk, (5, 30), weight=2),
    Kind("broker killed", _brokers, kill_broker, (0, 10), weight=3),
    Kind("broker restarted", _brokers, restart_broker, (0, 10)),
    Kind("broker stopped", _brokers, freeze_broker, (5, 60)),
    Kind("link cut", _sites, cut_link, (5, 180), weight=3),
    Kind("link silent", _sites, silence_link, (5, 90)),
    Kind("link slow", _sites, slow_link, (20, 120)),
    Kind("database killed", _databases, kill_database, (0, 8), weight=2),
    Kind("database disconnected", _databases, disconnect_database),
)
"""Every kind of fault."""


def _service(town: Town, target: str) -> Service:
    return next(service for service in town.services if service.name == target)


def _broker(town: Town, target: str) -> PlacedBroker:
    return town.fed.cloud if target == "cloud" else town.fed.sites[target].broker


def _required(harmed: bool) -> None:
    if not harmed:
        raise Unharmed


async def _freeze(pid: int, seconds: float) -> None:
    try:
        os.kill(pid, signal.SIGSTOP)
    except ProcessLookupError:
        raise Unharmed from None
    try:
        await asyncio.sleep(seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _kill_child(pid: int, program: str) -> None:
    """Kill the latest of a process's descendants in whose command line `program` is."""
    fitting = [child for child in _descendants(pid) if program in _command(child)]
    _required(bool(fitting))
    with contextlib.suppress(ProcessLookupError):
        os.kill(fitting[-1], signal.SIGKILL)


def _descendants(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            yield child
            yield from _descendants(child)


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""
