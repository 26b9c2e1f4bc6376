"""A hub on fakes with a device and a client, on one broker in memory: whole jobs in no time."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

from sqlalchemy import select

import small_models
from fakes.bus import MemoryBroker
from fakes.compute import FakeCompute
from fakes.device import FakeDevice
from fakes.shell import CLIENT, SITE
from resonator.bus import topics
from resonator.bus.blobs import Blobs, BlobStore, digest_of
from resonator.bus.peer import Peer
from resonator.ids import JobId
from resonator.jobspec import Budget, JobBody, Measure, Metadata, ModelSpec, TargetSpec, TuningJob
from resonator.messages import BlobRef, JobStatus, JobSubmit
from resonator_hub.database import Database, sqlite_url
from resonator_hub.hub import Hub, Identity
from resonator_hub.journal import Journal
from resonator_hub.rules import Rules, began
from resonator_hub.scheduler import events
from resonator_hub.tables import SNAPSHOTS

JOB = JobId("j")
RULES = Rules("load_aware", batch=4, window_s=30.0)
MODEL = small_models.perceptron()


class House:
    """A hub, a device and a client on one broker in memory; the hub may be ended and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = MemoryBroker()
        self.compute = FakeCompute()
        self.device = FakeDevice(self.broker.client())
        self.client = Peer(self.broker.client(), CLIENT)
        self.blobs: Blobs = BlobStore(folder / "blobs")
        self.hubs = 0

    @contextlib.asynccontextmanager
    async def hub(self, *, killed: bool = False) -> AsyncIterator[Hub]:
        """Run a hub; `killed` ends it without a goodbye."""
        database = Database.open(sqlite_url(self.folder / "hub.db"))
        journal = Journal(database)
        identity = Identity(SITE, "main", journal.length() + 1, 2, began(journal) or RULES)
        bus = self.broker.client()
        made = Hub(identity, bus, self.compute, database, self.blobs)
        await made.prepare()
        stop = asyncio.Event()
        task = asyncio.ensure_future(made.run(stop))
        await bus.start()
        try:
            yield made
        finally:
            self.broker.clients.remove(bus)
            if killed:
                task.cancel()
            stop.set()
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()
            database.close()

    async def submit(
        self, trials: int = 16, *, objective: float | None = None, job: str = JOB, again: bool = False
    ) -> None:
        body = JobBody.model_validate(
            {
                "model": ModelSpec(onnx="m.onnx"),
                "target": TargetSpec(kind="cpu"),
                "budget": Budget(trials=trials, again=again),
                "objective": None if objective is None else {"latency_ms": objective},
                "measure": Measure(number=2),
            }
        )
        spec = TuningJob(metadata=Metadata(name="small"), spec=body)
        ref = BlobRef(digest=digest_of(MODEL), size=len(MODEL), data=zlib.compress(MODEL))
        await self.client.send(topics.client_up(SITE, CLIENT), JobSubmit(job=job, spec=spec, model=ref))

    async def ended(self, job: str = JOB) -> JobStatus:
        """Wait for the last status of a job."""
        count = 0
        while True:
            count += 1
            status = (await self.broker.wait_for(JobStatus, count)).message
            assert isinstance(status, JobStatus)
            if status.job == job and status.state.ended:
                return status

    def journal(self) -> list[events.Event]:
        database = Database.read(self.folder / "hub.db")
        try:
            return list(Journal(database).events())
        finally:
            database.close()

    def snapshots(self) -> list[int]:
        """Return after which events a snapshot was taken."""
        database = Database.read(self.folder / "hub.db")
        try:
            with database.transaction() as connection:
                return list(connection.execute(select(SNAPSHOTS.c.seq).order_by(SNAPSHOTS.c.seq)).scalars())
        finally:
            database.close()
