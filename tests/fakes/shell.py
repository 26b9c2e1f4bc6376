"""The hub's side of a bus in memory, with an inbox that takes everything: for tests of the shell's parts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from fakes.bus import MemoryBroker, MemoryBus
from resonator.bus import codec, topics
from resonator.bus.blobs import BlobStore
from resonator.bus.peer import Peer, new_id
from resonator.messages import DeviceState, Identity, Message, Offer, Status
from resonator.trust.seal import Seal
from resonator_hub.database import Database, sqlite_url
from resonator_hub.inbox import Clock, Inbox
from resonator_hub.scheduler.events import Event

SITE, BOX, CLIENT = "local", "box", "me"
TARGET = '{"kind": "llvm"}'


def identity(**changes: object) -> Identity:
    """What a small box is."""
    box = Identity(
        architecture="x86_64",
        cpu_model="Small CPU",
        cores=2,
        cores_used=(1,),
        memory=2**30,
        tvm_version="0.27",
        agent_version="0.1",
        labels={"model": "el300"},
        offers=(Offer(kind="cpu", target=TARGET),),
    )
    return box.model_copy(update=changes)


def state(session: int = 1, status: Status = Status.IDLE, **changes: object) -> DeviceState:
    """What a small box announces."""
    shown = None if status is Status.OFFLINE else identity()
    return DeviceState(status=status, session=session, instance=f"i{session}", identity=shown).model_copy(
        update=changes
    )


@dataclass
class Shell:
    """The parts below the parts under test."""

    broker: MemoryBroker
    bus: MemoryBus
    peer: Peer
    inbox: Inbox
    database: Database
    blobs: BlobStore
    events: list[Event] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while events may be taken, as it is at first."""
    _came: asyncio.Event = field(default_factory=asyncio.Event)

    async def hear(
        self,
        topic: str,
        message: Message,
        *,
        message_id: str | None = None,
        source: str = "box-1",
        reply_to: str | None = None,
        retain: bool = False,
        seal: Seal | None = None,
        age_s: float = 0.0,
    ) -> str:
        """Have the hub hear a message, said `age_s` ago if it is signed, and handle it."""
        at = None if seal is None else time.time() - age_s
        sent = message_id or new_id()
        payload = codec.encode(
            message, id=sent, source=source, reply_to=reply_to, at=at, topic=topic, seal=seal
        )
        await self.hear_bytes(topic, payload, retain=retain)
        return sent

    async def hear_bytes(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Have the hub hear whatever this is."""
        self.broker.publish(topic, payload, retain=retain)
        await self.bus.heard_all()
        await self.settle()

    async def device_says(self, channel: str, message: Message, *, message_id: str | None = None) -> str:
        """Have the hub hear its device."""
        return await self.hear(topics.device_up(SITE, BOX, channel), message, message_id=message_id)

    async def client_says(
        self, message: Message, *, message_id: str | None = None, channel: str = "request", **how: str
    ) -> str:
        """Have the hub hear its client."""
        topic = topics.client_up(SITE, CLIENT, channel)
        return await self.hear(topic, message, message_id=message_id, source=CLIENT, **how)

    async def settle(self) -> None:
        """Let what can go on go on."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def event(self) -> Event:
        """Wait for the next event that is taken, and return it."""
        self._came.clear()
        await asyncio.wait_for(self._came.wait(), 10.0)
        return self.events[-1]

    async def take(self) -> None:
        """Take events for ever, as the runtime does."""
        while True:
            for posted in await self.inbox.next():
                await self.hold.wait()
                if posted.also is not None:
                    with self.database.transaction() as connection:
                        posted.also(connection)
                self.events.append(posted.event)
                self._came.set()
                posted.taken.set_result(None)


@contextlib.asynccontextmanager
async def shell(folder: Path, seal: Seal | None = None) -> AsyncIterator[Shell]:
    """A hub's peer that listens, on a broker in memory."""
    broker = MemoryBroker()
    bus = broker.client()
    peer = Peer(bus, "main", seal)
    database = Database.open(sqlite_url(folder / "hub.db"))
    made = Shell(broker, bus, peer, Inbox(Clock()), database, BlobStore(folder / "blobs"))
    made.hold.set()
    await bus.subscribe(*topics.for_hub())
    tasks = [asyncio.ensure_future(peer.serve()), asyncio.ensure_future(made.take())]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        database.close()
