"""A short conversation at a broker: what it lets one listen to, who is there, and a question to the hub."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
import time
from dataclasses import dataclass, field

from resonator.bus import topics
from resonator.bus.connection import Connection
from resonator.bus.mqtt import MqttBus
from resonator.bus.peer import Peer, Received
from resonator.bus.url import BrokerAddress
from resonator.errors import ResonatorError
from resonator.messages import (
    HubState,
    Message,
    Rejected,
    RevocationsKnown,
    RevocationsQuery,
    SiteList,
    SiteQuery,
)
from resonator.trust import Credentials
from resonator.trust.party import USERS
from resonator.trust.seal import Seal

TIMES = 5
SHARE = 0.35
"""How much of its time a conversation may wait for a hub to be there, and once more for its answer."""


@dataclass
class Heard:
    """What was heard; times in seconds.

    `ahead_s` is how far this machine's clock is ahead of the hub's, where the hub signs what it says.
    """

    answers_s: list[float] = field(default_factory=list)
    tls: str = ""
    hubs: dict[str, HubState] = field(default_factory=dict)
    asked: bool = False
    hub_s: float | None = None
    ahead_s: float | None = None
    refusal: str = ""


class RefusedTopics(ResonatorError):
    """The broker lets somebody in, but not listen to what is his; `str()` is where."""


@dataclass(frozen=True)
class _Place:
    """Where somebody listens at a site, and what he may ask; a hub itself asks nothing."""

    listens: str
    asks: str = ""
    question: Message | None = None


async def talk(address: BrokerAddress, credentials: Credentials | None, site: str, timeout: float) -> Heard:
    """Connect, listen, ask; raises ConnectionLost and RefusedTopics."""
    heard = Heard()
    place = _place(credentials, site)
    tls = None if credentials is None else credentials.context()
    await _measure(address, tls, (place.listens, topics.hubs()), heard)
    async with MqttBus(str(address), tls=tls) as bus:
        await bus.subscribe(place.listens, topics.hubs())
        seal = None if credentials is None else Seal(credentials)
        await _listen(Peer(bus, "doctor", seal), place, heard, SHARE * timeout)
    return heard


def _place(credentials: Credentials | None, site: str) -> _Place:
    party = None if credentials is None else credentials.party
    if party is not None and party.role == "device":
        here = topics.device_dn(party.site, party.name, "trust")
        return _Place(here, topics.device_up(party.site, party.name, "trust"), RevocationsQuery(number=2**53))
    if party is not None and party.role not in USERS:
        return _Place(topics.hub_state(site, party.name))
    name = f"doctor-{secrets.token_hex(4)}" if party is None else party.name
    where = site if party is None else party.site
    return _Place(topics.client_dn(where, name), topics.client_up(where, name), SiteQuery())


async def _measure(
    address: BrokerAddress, tls: ssl.SSLContext | None, filters: tuple[str, ...], heard: Heard
) -> None:
    """Note how long the broker takes to answer, and whether it lets us listen; nothing is published."""
    name = f"resonator-doctor-{secrets.token_hex(8)}"
    connection = Connection(address, name, 15, None, lambda _delivery: None, tls)
    await connection.open()
    try:
        for _ in range(TIMES):
            began = time.perf_counter()
            refused = await connection.subscribe(filters)
            heard.answers_s.append(time.perf_counter() - began)
            if refused:
                raise RefusedTopics(", ".join(refused))
        sock = connection.socket()
        if isinstance(sock, ssl.SSLSocket):
            heard.tls = str(sock.version())
    finally:
        await connection.close()


async def _listen(peer: Peer, place: _Place, heard: Heard, patience_s: float) -> None:
    """Hear which hubs are there, and have one of them answer."""
    online, answered, asked_at = asyncio.Event(), asyncio.Event(), time.time()

    async def on_hub(received: Received) -> None:
        assert isinstance(received.message, HubState)
        heard.hubs[f"{received.address.site}/{received.address.name}"] = received.message
        if received.message.status == "online":
            online.set()

    async def on_answer(received: Received) -> None:
        heard.hub_s = time.time() - asked_at
        if received.at is not None:
            heard.ahead_s = asked_at + heard.hub_s / 2 - received.at
        if isinstance(received.message, Rejected):
            heard.refusal = received.message.failure.detail
        answered.set()

    peer.on(HubState, on_hub)
    for kind in (SiteList, RevocationsKnown, Rejected):
        peer.on(kind, on_answer)
    hearing = asyncio.ensure_future(peer.serve())
    try:
        if await _happens(online, patience_s) and place.question is not None:
            heard.asked, asked_at = True, time.time()
            await peer.send(place.asks, place.question, reply_to=place.listens)
            await _happens(answered, patience_s)
    finally:
        hearing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await hearing


async def _happens(event: asyncio.Event, within_s: float) -> bool:
    """Wait for an event; return whether it came within that many seconds."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), within_s)
    return event.is_set()
