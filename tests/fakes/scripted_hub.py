"""A hub that follows a script: it hears all that devices say, and says what the test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from resonator.bus import topics
from resonator.bus.blobs import BlobStore, serve
from resonator.bus.mqtt import MqttBus
from resonator.bus.peer import Peer, Received
from resonator.jobspec import Measure
from resonator.messages import (
    Ack,
    BlobAbsent,
    BlobChunk,
    BlobRequest,
    DeviceClaim,
    DeviceState,
    KernelResult,
    Message,
    Telemetry,
    WindowClosed,
    WindowGrant,
    WindowOpened,
    WindowRefused,
)

M = TypeVar("M", bound=Message)
SITE, NAME = "lab", "box"
MEASURE = Measure(number=1, repeat=2, min_repeat_ms=1, timeout_s=5.0)
LONG_S = 60.0


class ScriptedHub:
    """The hub of one device, `NAME` at a site."""

    def __init__(self, url: str, folder: Path, site: str = SITE):
        self.site = site
        self.bus = MqttBus(url)
        self.peer = Peer(self.bus, "hub")
        self.store = BlobStore(folder)
        self.heard: list[Received] = []
        self.acknowledges = True
        self._news = asyncio.Condition()
        for kind in (
            DeviceState,
            DeviceClaim,
            WindowOpened,
            WindowRefused,
            WindowClosed,
            KernelResult,
            Telemetry,
        ):
            self.peer.on(kind, self._hear)
        self.peer.on(BlobRequest, self._serve)
        self.peer.on_bridge(lambda *_: None)

    async def say(self, channel: str, message: Message) -> None:
        await self.peer.send(topics.device_dn(self.site, NAME, channel), message)

    async def grant(self, epoch: int, job: str = "job") -> None:
        await self.say("window", WindowGrant(epoch=epoch, job=job, duration=300.0, measure=MEASURE))

    async def wait(self, kind: type[M], accept: Callable[[M], bool] = lambda _: True, count: int = 1) -> M:
        """Wait until `count` such messages were heard in all; return the last of them."""

        def matching() -> list[M]:
            return [r.message for r in self.heard if isinstance(r.message, kind) and accept(r.message)]

        async with self._news:
            await asyncio.wait_for(self._news.wait_for(lambda: len(matching()) >= count), LONG_S)
        return matching()[-1]

    def ids(self, kind: type[Message]) -> list[str]:
        return [received.id for received in self.heard if isinstance(received.message, kind)]

    async def _hear(self, received: Received) -> None:
        if self.acknowledges and isinstance(received.message, (KernelResult, WindowClosed)):
            await self.say("ack", Ack(ids=(received.id,)))
        async with self._news:
            self.heard.append(received)
            self._news.notify_all()

    async def _serve(self, received: Received) -> None:
        assert isinstance(received.message, BlobRequest)
        answer: BlobChunk | BlobAbsent = serve(self.store, received.message)
        await self.say("blob", answer)


@asynccontextmanager
async def scripted(url: str, folder: Path, site: str = SITE) -> AsyncIterator[ScriptedHub]:
    """A scripted hub that is connected."""
    made = ScriptedHub(url, folder / "hub", site)
    await made.bus.subscribe(*topics.for_hub())
    async with made.bus:
        await made.bus.wait_connected(10)
        serving = asyncio.ensure_future(made.peer.serve())
        yield made
    await serving
