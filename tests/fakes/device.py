"""A box that measures at once, by its name on a bus: for tests of the hub alone."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

from fakes.shell import BOX, SITE, state
from resonator.bus import topics
from resonator.bus.peer import Peer, Received
from resonator.bus.port import Bus
from resonator.messages import (
    Ack,
    BlobAbsent,
    BlobChunk,
    KernelPush,
    KernelResult,
    Message,
    Status,
    WindowClose,
    WindowClosed,
    WindowGrant,
    WindowOpened,
    WindowRefused,
)
from resonator.trust.seal import Seal


class FakeDevice:
    """Accepts windows of rising epochs and answers each kernel with a latency made of its candidate's name.

    `paused` while cleared keeps results back; `acked` are the ids the hub has acknowledged. `says` makes what
    it says of what came out, which is the same unless it lies.
    """

    def __init__(self, bus: Bus, *, epoch: int = 0, seal: Seal | None = None) -> None:
        self._bus = bus
        self.peer = Peer(bus, "box-1", seal)
        self.epoch = epoch
        self.open: str | None = None
        self.pushed: list[KernelPush] = []
        self.acked: set[str] = set()
        self.says: Callable[[KernelResult], KernelResult] = lambda result: result
        self.reported: list[str] = []
        self.results: list[tuple[str, KernelResult]] = []
        self.paused = asyncio.Event()
        self.paused.set()
        self.peer.on(WindowGrant, self._on_grant)
        self.peer.on(WindowClose, self._on_close)
        self.peer.on(KernelPush, self._on_kernel)
        self.peer.on(Ack, self._on_ack)
        for ignored in (BlobChunk, BlobAbsent):
            self.peer.on(ignored, self._ignore)

    async def start(self) -> asyncio.Task[None]:
        """Join the fleet; returns the task that listens."""
        await self._bus.subscribe(topics.for_device(SITE, BOX)[0])
        await self.announce()
        return asyncio.ensure_future(self.peer.serve())

    async def announce(self, session: int = 1, status: Status = Status.IDLE) -> None:
        shown = state(session, status, epoch=self.epoch, credit=10**6)
        await self._say("state", shown, retain=True)

    async def _say(
        self, channel: str, message: Message, *, retain: bool = False, message_id: str | None = None
    ) -> str:
        topic = topics.device_up(SITE, BOX, channel)
        return await self.peer.send(topic, message, retain=retain, message_id=message_id)

    async def _on_grant(self, received: Received) -> None:
        grant = received.message
        assert isinstance(grant, WindowGrant)
        if grant.epoch <= self.epoch:
            refused = WindowRefused(epoch=grant.epoch, job=grant.job, highest=self.epoch, reason="seen")
            await self._say("window", refused)
            return
        self.epoch, self.open = grant.epoch, grant.job
        await self._say("window", WindowOpened(epoch=grant.epoch, job=grant.job, credit=10**6))

    async def _on_close(self, received: Received) -> None:
        close = received.message
        assert isinstance(close, WindowClose)
        if self.open is not None and close.epoch == self.epoch:
            job, self.open = self.open, None
            await self._say("window", WindowClosed(epoch=close.epoch, job=job, reason="asked"))

    async def _on_kernel(self, received: Received) -> None:
        push = received.message
        assert isinstance(push, KernelPush)
        if push.epoch != self.epoch or self.open is None:
            return
        self.pushed.append(push)
        if self.paused.is_set():
            await self.report(push)

    async def report(self, push: KernelPush, *, message_id: str | None = None) -> None:
        """Say how long a kernel takes."""
        number = int(hashlib.sha256(push.candidate.encode()).hexdigest()[:4], 16)
        result = KernelResult(
            job=push.job,
            candidate=push.candidate,
            epoch=push.epoch,
            latencies=((1 + number) * 1e-8,),
            error=1e-7 if push.model else None,
            device_time=0.001,
        )
        self.reported.append(await self._say("result", self.says(result), message_id=message_id))

    async def _on_ack(self, received: Received) -> None:
        ack = received.message
        assert isinstance(ack, Ack)
        self.acked.update(ack.ids)

    async def _ignore(self, received: Received) -> None:
        """Kernels ride along here; nothing is pulled."""
