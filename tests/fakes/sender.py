"""A box without a profiler: the post and outbox of an agent, and results that nobody has measured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fakes.scripted_hub import LONG_S, NAME
from resonator.bus import topics
from resonator.bus.mqtt import MqttBus
from resonator.bus.peer import Peer, Received
from resonator.messages import Ack, KernelResult
from resonator_agent.outbox import Outbox
from resonator_agent.post import Post

TOGETHER = 100
"""How many results are sent before the acknowledgements of those are awaited."""


class Sender:
    """The device `NAME` of a site, as far as its results go."""

    def __init__(self, url: str, site: str, folder: Path) -> None:
        self.peer = Peer(MqttBus(url), NAME)
        self.outbox = Outbox(folder / "sender.sqlite")
        self._post = Post(self.peer, self.outbox, site, NAME)
        self._news = asyncio.Condition()
        self.peer.on(Ack, self._hear)

    async def report(self, count: int) -> None:
        """Send so many results, until the site's broker has them."""
        for number in range(count):
            candidate = f"job/t0/c{number}"
            self._post.send(KernelResult(epoch=1, job="job", candidate=candidate, latencies=(1e-3,)))
        await self._post.flush(LONG_S)

    async def insist(self) -> None:
        """Send again what the hub has not acknowledged, as the outbox does when its time has come."""
        await self.peer.bus.wait_connected(LONG_S)
        while kept := self.outbox.pending():
            overdue = kept[:TOGETHER]
            for one in overdue:
                self._post.resend_result(1, one.subject.partition(":")[2])
            await self._taken({one.id for one in overdue})

    async def _taken(self, ids: set[str]) -> None:
        """Wait until the hub has acknowledged messages."""
        async with self._news:
            gone = self._news.wait_for(lambda: ids.isdisjoint(one.id for one in self.outbox.pending()))
            await asyncio.wait_for(gone, LONG_S)

    async def _hear(self, received: Received) -> None:
        assert isinstance(received.message, Ack)
        async with self._news:
            self._post.acknowledged(received.message.ids)
            self._news.notify_all()


@asynccontextmanager
async def sender(url: str, site: str, folder: Path) -> AsyncIterator[Sender]:
    """A sender that is connected to its site's broker."""
    made = Sender(url, site, folder)
    await made.peer.bus.subscribe(*topics.for_device(site, NAME))
    async with made.peer.bus:
        await made.peer.bus.wait_connected(LONG_S)
        serving = asyncio.ensure_future(made.peer.serve())
        yield made
    await serving
    made.outbox.close()
