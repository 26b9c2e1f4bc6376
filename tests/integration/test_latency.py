"""A broker that takes its time: nothing that a device needs may wait for a round trip of its own."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import small_models
from fakes.compute import FakeCompute
from fakes.device import FakeDevice
from fakes.shell import CLIENT, SITE
from resonator.bus import topics
from resonator.bus.blobs import BlobStore, digest_of
from resonator.bus.mqtt import MqttBus
from resonator.bus.peer import Peer, Received
from resonator.jobspec import Budget, JobBody, Metadata, ModelSpec, TargetSpec, TuningJob
from resonator.messages import BlobRef, JobAccepted, JobState, JobStatus, JobSubmit, KernelPush
from resonator_hub.broker import EmbeddedBroker
from resonator_hub.broker.faults import Faults
from resonator_hub.database import Database, sqlite_url
from resonator_hub.hub import Hub, Identity
from resonator_hub.rules import Rules

DELAY_S = 0.025
TRIALS = 64
WAIT_S = 30.0
MODEL = small_models.perceptron()


class LateDevice(FakeDevice):
    """Answers for whole models at once, for kernels only when `release` is called."""

    def __init__(self, bus: MqttBus) -> None:
        super().__init__(bus)
        self.paused.clear()
        self.staged = asyncio.Semaphore(0)

    async def _on_kernel(self, received: Received) -> None:
        await super()._on_kernel(received)
        push = received.message
        assert isinstance(push, KernelPush)
        if push.model:
            await self.report(push)
        elif not self.paused.is_set():
            self.staged.release()

    async def release(self) -> None:
        """Answer for every kernel, those to come included."""
        self.paused.set()
        for push in self.pushed:
            if not push.model:
                await self.report(push)


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    broker = EmbeddedBroker()
    await broker.start()
    broker.faults = Faults(delay_s=(DELAY_S, DELAY_S))
    yield broker
    await broker.stop()


@contextlib.asynccontextmanager
async def running_hub(url: str, folder: Path) -> AsyncIterator[None]:
    database = Database.open(sqlite_url(folder / "hub.db"))
    identity = Identity(SITE, "main", 1, 2, Rules("load_aware", 16, 60.0))
    stop = asyncio.Event()
    async with MqttBus(url) as bus:
        hub = Hub(identity, bus, FakeCompute(), database, BlobStore(folder / "blobs"))
        await hub.prepare()
        running = asyncio.ensure_future(hub.run(stop))
        yield
        stop.set()
        await running
    database.close()


@contextlib.asynccontextmanager
async def running_device(url: str) -> AsyncIterator[LateDevice]:
    async with MqttBus(url) as bus:
        device = LateDevice(bus)
        listening = await device.start()
        yield device
        listening.cancel()
        await asyncio.wait({listening})


@contextlib.asynccontextmanager
async def submitted(url: str) -> AsyncIterator[asyncio.Future[JobStatus]]:
    """Submit a job of two operators; the future is its last status."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[JobStatus] = loop.create_future()

    async def note(received: Received) -> None:
        status = received.message
        assert isinstance(status, JobStatus)
        if status.state.ended and not ended.done():
            ended.set_result(status)

    async with MqttBus(url) as bus:
        client = Peer(bus, CLIENT)
        client.on(JobStatus, note)
        await bus.subscribe(*topics.for_client(SITE, CLIENT), topics.job_status(SITE, "j"))
        listening = asyncio.ensure_future(client.serve())
        body = JobBody(
            model=ModelSpec(onnx="m.onnx"), target=TargetSpec(kind="cpu"), budget=Budget(trials=TRIALS)
        )
        spec = TuningJob(metadata=Metadata(name="small"), spec=body)
        ref = BlobRef(digest=digest_of(MODEL), size=len(MODEL), data=zlib.compress(MODEL))
        own = topics.client_up(SITE, CLIENT), topics.client_dn(SITE, CLIENT)
        order = JobSubmit(job="j", spec=spec, model=ref)
        await client.request(own[0], order, JobAccepted, reply_to=own[1], timeout=WAIT_S)
        yield ended
        listening.cancel()
        await asyncio.wait({listening})


async def test_kernels_are_staged_ahead_of_any_result(broker: EmbeddedBroker, tmp_path: Path) -> None:
    async with (
        running_device(broker.url) as device,
        running_hub(broker.url, tmp_path),
        submitted(broker.url) as ended,
    ):
        for _ in range(16):
            await asyncio.wait_for(device.staged.acquire(), WAIT_S)
        assert not ended.done()

        await device.release()
        status = await asyncio.wait_for(ended, WAIT_S)

    assert (status.state, status.trials) == (JobState.SUCCEEDED, TRIALS)
