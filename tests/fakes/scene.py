"""A fleet with certificates at Mosquitto: a hub without compute, a box that measures at once, a user."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from fakes.compute import FakeCompute
from fakes.device import FakeDevice
from fakes.fleet_authority import Fleet, guarded
from fakes.orders import MODEL, carried, spec
from fakes.shell import BOX, SITE
from fakes.speakers import PATIENCE_S, Speaker, Tap, seal_of, speaking, tapping
from resonator.bus import topics
from resonator.bus.blobs import BlobStore
from resonator.bus.mqtt import MqttBus
from resonator.jobspec import Budget
from resonator.messages import (
    DeviceList,
    DeviceQuery,
    JobAccepted,
    JobState,
    JobStatus,
    JobSubmit,
    Message,
)
from resonator.trust import Credentials, Party
from resonator_hub.database import Database, sqlite_url
from resonator_hub.hub import Hub, Identity
from resonator_hub.journal import Journal
from resonator_hub.rules import Rules
from resonator_hub.scheduler.events import Measured

TRIALS = 48
HUB, GOOD = Party("hub", SITE, "main"), Party("device", SITE, BOX)
BAD = Party("device", SITE, "bad")
ANN, BOB = Party("submitter", SITE, "ann"), Party("submitter", SITE, "bob")
VERA = Party("viewer", SITE, "vera")
JOB = "j"


class Scene:
    """What runs, and what the test asks of it."""

    def __init__(self, fleet: Fleet, url: str, database: Database, hub: Hub) -> None:
        self.fleet, self.url, self.hub = fleet, url, hub
        self._journal = Journal(database)
        self.device: FakeDevice
        self.ann: Speaker
        self.tap: Tap

    @property
    def refused(self) -> dict[str, int]:
        """What the hub refused, by reason."""
        return dict(self.hub.peer.refused)

    async def ask(self, who: Speaker, message: Message, answer: type[Message]) -> Message:
        """Ask the hub on somebody's own topic."""
        up, dn = topics.client_up(SITE, who.party.name), topics.client_dn(SITE, who.party.name)
        return await who.peer.request(up, message, answer, reply_to=dn, timeout=PATIENCE_S)

    async def submit(self) -> None:
        """Have the user submit the job."""
        job = JobSubmit(job=JOB, spec=spec(budget=Budget(trials=TRIALS)), model=carried(MODEL))
        assert await self.ask(self.ann, job, JobAccepted) == JobAccepted(job=JOB)

    async def succeeds(self) -> None:
        """Wait until the job has ended well, with every trial measured once, by the good device."""

        async def ended() -> JobStatus:
            count = 0
            while True:
                count += 1
                status = await self.ann.hears(JobStatus, count)
                assert isinstance(status, JobStatus)
                if status.state.ended:
                    return status

        status = await asyncio.wait_for(ended(), 6 * PATIENCE_S)
        assert (status.state, status.trials) == (JobState.SUCCEEDED, TRIALS), status.failure
        taken = [event for event in self._journal.events() if isinstance(event, Measured)]
        assert {event.device for event in taken} == {f"{SITE}/{BOX}"}
        assert len({(event.epoch, event.candidate) for event in taken}) == len(taken)
        assert min(min(event.latencies) for event in taken if event.latencies) >= 1e-8

    async def until_known(self, device: str) -> None:
        """Wait until the hub has heard a device's presence, and all that it said before."""

        async def known() -> None:
            while True:
                answer = await self.ask(self.ann, DeviceQuery(), DeviceList)
                assert isinstance(answer, DeviceList)
                if device in [report.device for report in answer.devices]:
                    return

        await asyncio.wait_for(known(), 3 * PATIENCE_S)


@contextlib.asynccontextmanager
async def staged(folder: Path, *, captured: bool) -> AsyncIterator[Scene]:
    """Everybody at a broker, `captured` by somebody who is let in as the bad device."""
    fleet = Fleet(folder)
    for party in (HUB, GOOD, BAD, ANN, BOB, VERA):
        fleet.enrol(party)
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(guarded(fleet, captured=captured))
        scene = await stack.enter_async_context(_hub(fleet, url, folder))
        scene.device = await stack.enter_async_context(_device(fleet, url))
        filters = (*topics.for_client(SITE, ANN.name), topics.job_status(SITE, JOB))
        scene.ann = await stack.enter_async_context(speaking(fleet, url, ANN, *filters))
        scene.ann.listens(JobStatus)
        if captured:
            scene.tap = await stack.enter_async_context(tapping(fleet, url, BAD))
        yield scene


@contextlib.asynccontextmanager
async def _hub(fleet: Fleet, url: str, folder: Path) -> AsyncIterator[Scene]:
    database = Database.open(sqlite_url(folder / "hub.db"))
    credentials = Credentials.load(fleet.place(HUB))
    identity = Identity(SITE, "main", 1, 2, Rules("load_aware", 16, 60.0), seal_of(fleet, HUB))
    stop = asyncio.Event()
    async with MqttBus(url, tls=credentials.context()) as bus:
        hub = Hub(identity, bus, FakeCompute(), database, BlobStore(folder / "blobs"))
        await hub.prepare()
        running = asyncio.ensure_future(hub.run(stop))
        try:
            yield Scene(fleet, url, database, hub)
        finally:
            stop.set()
            await running
    database.close()


@contextlib.asynccontextmanager
async def _device(fleet: Fleet, url: str) -> AsyncIterator[FakeDevice]:
    credentials = Credentials.load(fleet.place(GOOD))
    async with MqttBus(url, tls=credentials.context()) as bus:
        device = FakeDevice(bus, seal=seal_of(fleet, GOOD))
        listening = await device.start()
        try:
            yield device
        finally:
            listening.cancel()
            await asyncio.wait({listening})
