"""All that a soak runs: a cloud and three sites, a hub (or two and a PostgreSQL), six boxes, a client."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from fakes.disks import SmallDisk
from fakes.guarantees import Evidence, pending, read_books
from fakes.postgres import Postgres
from fakes.sites import SITES, Federation, federation
from fakes.stories import AgentLife, read
from resonator.ids import DeviceId, JobId, device_id
from resonator_hub.database import Database
from soak.services import Death, Service

BOXES = ("box1", "box2")
BLOBS = "blobs"
WINDOW_S = 20
BOX_DISK_MIB, HUB_DISK_MIB = 48, 512
GOODBYE_S = 40.0


@dataclass
class Town:
    """Everybody, by name; `disks` are those of services, `database` the place of the hub's books."""

    folder: Path
    fed: Federation
    hubs: dict[str, Service]
    boxes: dict[DeviceId, Service]
    disks: dict[str, SmallDisk]
    database: Path | str
    postgres: Postgres | None
    accepted: list[JobId] = field(default_factory=list)

    @property
    def services(self) -> list[Service]:
        return [*self.hubs.values(), *self.boxes.values()]

    @property
    def deaths(self) -> list[Death]:
        return [death for service in self.services for death in service.deaths]

    def outbox(self, device: DeviceId) -> Path:
        site, _, name = device.partition("/")
        return self.fed.agent_state(site, name) / "outbox.sqlite"

    def waiting(self) -> int:
        """Return how many results wait in outboxes."""
        return sum(len(pending(device, self.outbox(device))) for device in self.boxes)

    def lives(self) -> list[AgentLife]:
        """Return what every life of every box has told."""
        return [
            AgentLife(device, number, tuple(read(life.log)))
            for device, service in self.boxes.items()
            for number, life in enumerate(service.lives, 1)
        ]

    def leads(self) -> list[tuple[float, str]]:
        """Return when which hub began to lead the database that they share."""
        return sorted(
            (line.at, name)
            for name, hub in self.hubs.items()
            for life in hub.lives
            for line in read(life.log)
            if line.event.startswith("this hub leads")
        )

    def evidence(self) -> Evidence:
        """Return all that is known by now."""
        database = Database.read(self.database)
        try:
            books = read_books(database)
        finally:
            database.close()
        outboxes = {device: self.outbox(device) for device in self.boxes}
        return Evidence(self.accepted, books, self.lives(), outboxes)


@contextlib.asynccontextmanager
async def town(folder: Path, *, shared: bool) -> AsyncIterator[Town]:
    """A town in which everybody runs; with `shared`, two hubs share a PostgreSQL, and one stands by."""
    os.environ["RESONATOR_WINDOW"] = str(WINDOW_S)
    async with contextlib.AsyncExitStack() as stack:
        fed = await stack.enter_async_context(federation(folder))
        disks: dict[str, SmallDisk] = {}
        postgres = _postgres(folder, stack) if shared else None
        if postgres is not None:
            os.environ["RESONATOR_DATABASE_URL"] = postgres.url()
            os.environ["RESONATOR_BLOBS"] = str(folder / BLOBS)
            disks[BLOBS] = SmallDisk(folder / BLOBS, HUB_DISK_MIB)
        hubs = {name: _hub(name, fed, disks) for name in (("hub-a", "hub-b") if shared else ("hub",))}
        boxes = {device_id(site, name): _box(site, name, fed, disks) for site in SITES for name in BOXES}
        database = postgres.url() if postgres else folder / "hub"
        made = Town(folder, fed, hubs, boxes, disks, database, postgres)
        for disk in disks.values():
            stack.callback(disk.unmount)
        stack.push_async_callback(_end, made)
        for service in made.services:
            await service.start()
        yield made


async def _end(town: Town) -> None:
    await asyncio.gather(*(service.end(GOODBYE_S) for service in town.services))


def _postgres(folder: Path, stack: contextlib.AsyncExitStack) -> Postgres:
    place = folder / "postgres"
    place.mkdir()
    folder.chmod(0o711)  # its account must be able to enter
    server = Postgres(place)
    server.create()
    server.start()
    stack.callback(server.stop)
    return server


def _hub(name: str, fed: Federation, disks: dict[str, SmallDisk]) -> Service:
    state = fed.folder / name
    disks[name] = SmallDisk(state, HUB_DISK_MIB)
    where = ["--broker", fed.cloud.outer_url, "--insecure", "--state", str(state), "--slots", "1", "--json"]
    return Service(name, fed.folder, ("hub", *where))


def _box(site: str, name: str, fed: Federation, disks: dict[str, SmallDisk]) -> Service:
    state, at = fed.agent_state(site, name), fed.sites[site].broker
    disks[f"{site}/{name}"] = SmallDisk(state, BOX_DISK_MIB)
    where = ["--site", site, "--name", name, "--broker", at.url, "--state", str(state)]
    options = ["--max-foreign-load", "1.0", "--json"]
    return Service(f"{site}/{name}", fed.folder, ("agent", *where, *options), at.place.within)
