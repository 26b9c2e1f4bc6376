"""Parties of a fleet on a real broker: some speak as they should, one publishes whatever he likes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fakes.fleet_authority import Fleet
from resonator.bus import codec
from resonator.bus.mqtt import MqttBus
from resonator.bus.peer import Peer, Received, new_id
from resonator.bus.port import Delivery
from resonator.messages import Message
from resonator.trust import Credentials, Party
from resonator.trust.seal import Seal

PATIENCE_S = 20.0


def seal_of(fleet: Fleet, party: Party) -> Seal:
    return Seal(Credentials.load(fleet.place(party)))


def signed(
    seal: Seal | None,
    topic: str,
    message: Message,
    *,
    message_id: str | None = None,
    reply_to: str | None = None,
    at: float | None = None,
) -> bytes:
    """Return what somebody says on a topic."""
    sent = message_id or new_id()
    return codec.encode(message, id=sent, source="x", reply_to=reply_to, at=at, topic=topic, seal=seal)


class Speaker:
    """A party with its own certificate; what was said to it is in `heard`, every payload it saw in `seen`."""

    def __init__(self, fleet: Fleet, url: str, party: Party, client_id: str | None = None) -> None:
        credentials = Credentials.load(fleet.place(party))
        self.party, self.seal, self.tls = party, Seal(credentials), credentials.context()
        self.bus = MqttBus(url, client_id=client_id, tls=self.tls)
        self.peer = Peer(self.bus, party.name, self.seal)
        self.heard: list[Received] = []
        self._news = asyncio.Condition()

    def listens(self, *kinds: type[Message]) -> None:
        for kind in kinds:
            self.peer.on(kind, self._hear)

    async def hears(self, kind: type[Message], count: int = 1) -> Message:
        """Wait until so many messages of a kind were heard; return the last of them."""

        def found() -> list[Message]:
            return [one.message for one in self.heard if isinstance(one.message, kind)]

        async with self._news:
            await asyncio.wait_for(self._news.wait_for(lambda: len(found()) >= count), PATIENCE_S)
        return found()[-1]

    async def _hear(self, received: Received) -> None:
        async with self._news:
            self.heard.append(received)
            self._news.notify_all()


@contextlib.asynccontextmanager
async def speaking(
    fleet: Fleet, url: str, party: Party, *filters: str, client_id: str | None = None
) -> AsyncIterator[Speaker]:
    """A party that listens to `filters`, until the end of the block."""
    speaker = Speaker(fleet, url, party, client_id)
    await speaker.bus.subscribe(*filters)
    async with speaker.bus:
        await speaker.bus.wait_connected(PATIENCE_S)
        hearing = asyncio.create_task(speaker.peer.serve())
        try:
            yield speaker
        finally:
            hearing.cancel()
            await asyncio.wait({hearing})


class Tap:
    """Whoever took a broker over: he keeps all that passes, and says on any topic what he likes."""

    def __init__(self, bus: MqttBus) -> None:
        self._bus = bus
        self.kept: list[Delivery] = []
        self._news = asyncio.Condition()

    async def keep(self) -> None:
        async for delivery in self._bus.deliveries():
            async with self._news:
                self.kept.append(delivery)
                self._news.notify_all()

    async def catches(self, topic: str, count: int = 1) -> bytes:
        """Wait until so many messages were said on a topic; return the last one's bytes."""

        def found() -> list[bytes]:
            return [one.payload for one in self.kept if one.topic == topic]

        async with self._news:
            await asyncio.wait_for(self._news.wait_for(lambda: len(found()) >= count), PATIENCE_S)
        return found()[-1]

    async def says(self, topic: str, payload: bytes) -> None:
        await self._bus.publish(topic, payload)


@contextlib.asynccontextmanager
async def tapping(fleet: Fleet, url: str, party: Party) -> AsyncIterator[Tap]:
    """Someone at a captured broker, let in by the certificate of `party`."""
    bus = MqttBus(url, tls=Credentials.load(fleet.place(party)).context())
    await bus.subscribe("resonator/#")
    async with bus:
        await bus.wait_connected(PATIENCE_S)
        tap = Tap(bus)
        keeping = asyncio.create_task(tap.keep())
        try:
            yield tap
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})
