"""Two hubs of one name with a database each: the later one ends, whichever is heard first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fakes.bus import MemoryBroker
from resonator.bus import topics
from resonator.bus.peer import Peer
from resonator.messages import HubState
from resonator_hub.namesake import Namesake, NameTaken

TOPIC = topics.hub_state("lab", "main")


class Somebody:
    """A hub that says that it is there, and nothing else."""

    def __init__(self, broker: MemoryBroker, session: int, origin: str) -> None:
        self.bus = broker.client()
        self.peer = Peer(self.bus, "main")
        self.state = HubState(status="online", session=session, origin=origin)
        self.said = 0
        self.namesake = Namesake(self.peer, TOPIC, self.state, self.announce)

    async def announce(self) -> None:
        self.said += 1
        await self.peer.send(TOPIC, self.state, retain=True)


@asynccontextmanager
async def there(broker: MemoryBroker, session: int, origin: str) -> AsyncIterator[Somebody]:
    made = Somebody(broker, session, origin)
    await made.bus.subscribe(TOPIC)
    serving = asyncio.ensure_future(made.peer.serve())
    try:
        await made.announce()
        await settled(broker)
        yield made
    finally:
        serving.cancel()
        await asyncio.wait({serving})


async def settled(broker: MemoryBroker) -> None:
    for _ in range(5):
        for client in broker.clients:
            await client.heard_all()
        await asyncio.sleep(0)


async def met(hub: Somebody) -> bool:
    task = asyncio.ensure_future(hub.namesake.met())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if task.done():
        with pytest.raises(NameTaken, match=r"called 'main' at this broker: give this one another name"):
            task.result()
        return True
    task.cancel()
    await asyncio.wait({task})
    return False


@pytest.mark.parametrize(
    ("first", "second"), [((5, "a"), (9, "b")), ((9, "b"), (5, "a")), ((5, "a"), (5, "b"))]
)
async def test_the_later_one_ends_and_the_other_has_the_last_word(
    first: tuple[int, str], second: tuple[int, str]
) -> None:
    broker = MemoryBroker()
    async with there(broker, *first) as one, there(broker, *second) as other:
        later, earlier = (one, other) if first > second else (other, one)
        assert await met(later)
        assert not await met(earlier)
    shown = [sent.message for sent in broker.sent(HubState)]
    assert shown[-1] == earlier.state


async def test_who_shares_the_database_is_no_namesake() -> None:
    broker = MemoryBroker()
    async with there(broker, 5, "a") as one, there(broker, 9, "a") as other:
        assert not await met(one)
        assert not await met(other)
        assert (one.said, other.said) == (1, 1), "the one before does not contradict the one that leads now"


async def test_a_late_will_is_contradicted_and_what_was_retained_proves_nothing() -> None:
    broker = MemoryBroker()
    stale = Peer(broker.client(), "main")
    await stale.send(TOPIC, HubState(status="online", session=1, origin="gone"), retain=True)
    async with there(broker, 5, "a") as hub:
        assert not await met(hub)
        await stale.send(TOPIC, HubState(status="offline", session=1, origin="gone"), retain=True)
        await settled(broker)
        assert not await met(hub)
        assert hub.said == 2
