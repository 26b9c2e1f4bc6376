"""Attacks that a real Mosquitto stops: somebody of the fleet speaks or listens where he has no say.

Who has no valid certificate at all is in test_mtls.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.fleet_authority import ANN, BOX, HUB, OTHER, VIEWER, Fleet, guarded
from resonator.bus import topics
from resonator.bus.connection import Connection, ConnectionLost
from resonator.bus.port import MAX_PACKET_BYTES, Delivery, Will
from resonator.bus.url import parse_broker_url
from resonator.trust import Credentials, Party
from resonator_hub.bootstrap import client_id
from resonator_hub.settings import HubSettings

PATIENCE_S = 10.0
STATE = topics.device_up("lab", "box", "state")
RESULT = topics.device_up("lab", "box", "result")


class Somebody:
    """One connection, and what it hears, as topics and payloads."""

    def __init__(self, fleet: Fleet, url: str, party: Party, client_id: str, will: Will | None) -> None:
        tls = Credentials.load(fleet.place(party)).context()
        self.heard: list[Delivery] = []
        self._news = asyncio.Event()
        self.connection = Connection(parse_broker_url(url), client_id, 15, will, self._hear, tls)

    def _hear(self, delivery: Delivery) -> None:
        self.heard.append(delivery)
        self._news.set()

    @property
    def payloads(self) -> list[bytes]:
        return [one.payload for one in self.heard]

    async def hears(self, payload: bytes) -> None:
        while payload not in self.payloads:
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), PATIENCE_S)

    async def says(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        await self.connection.publish(topic, payload, qos, retain)

    def hang_up(self) -> None:
        """Be gone without a goodbye."""
        sock = self.connection.socket()
        assert sock is not None
        sock.shutdown(2)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


@pytest.fixture
async def url(fleet: Fleet) -> AsyncIterator[str]:
    async with guarded(fleet) as url:
        yield url


@contextlib.asynccontextmanager
async def connected(
    fleet: Fleet, url: str, party: Party, *filters: str, called: str = "", will: Will | None = None
) -> AsyncIterator[Somebody]:
    name = called or f"{party.role}-{party.name}"
    somebody = Somebody(fleet, url, party, name, will)
    await asyncio.wait_for(somebody.connection.open(), PATIENCE_S)
    try:
        if filters:
            await somebody.connection.subscribe(filters)
        yield somebody
    finally:
        await somebody.connection.close()


@pytest.mark.parametrize("thief", [OTHER, ANN, VIEWER], ids=lambda party: str(party.role))
async def test_attack_acl_nobody_speaks_where_he_has_no_say(fleet: Fleet, url: str, thief: Party) -> None:
    place = thief.user
    forbidden = (
        RESULT,
        STATE,
        topics.client_up("lab", "bob"),
        topics.device_dn("lab", "box", "kernel"),
        topics.device_dn("lab", "other", "window"),
        topics.client_dn("lab", "ann"),
        topics.job_status("lab", "job"),
        topics.hub_state("lab", "main"),
        f"resonator/v1/{place}/dn/answer",
        f"resonator/v1/{place}/up/anything",
        f"resonator/v1/{place}/up/result/deeper",
        f"resonator/v1/{place}/up",
        "$SYS/broker/version",
        "$CONTROL/dynamic-security/v1",
        "anything",
    )
    async with (
        connected(fleet, url, HUB, *topics.for_hub(), "#", "$SYS/broker/version") as hub,
        connected(fleet, url, BOX, *topics.for_device("lab", "box")) as box,
        connected(fleet, url, thief) as other,
    ):
        for topic in forbidden:
            await other.says(topic, b"forged", retain=True)
            await other.says(topic, b"forged", qos=0)
        await other.says(f"resonator/v1/{place}/up/result", b"the end")
        await hub.hears(b"the end")
        await box.says(RESULT, b"a result")
        await hub.hears(b"a result")
        assert b"forged" not in hub.payloads + box.payloads
    async with connected(fleet, url, HUB, *topics.for_hub(), "resonator/#") as hub:
        await hub.says(topics.device_dn("lab", "box", "kernel"), b"x")
        assert b"forged" not in hub.payloads, "nor is any of it kept for later"


@pytest.mark.parametrize("thief", [OTHER, ANN], ids=lambda party: str(party.role))
async def test_attack_acl_wildcards_and_guesses_hear_nothing_kept_and_nothing_live(
    fleet: Fleet, url: str, thief: Party
) -> None:
    guesses = (
        "#",
        "+/#",
        "$SYS/#",
        "$CONTROL/#",
        "resonator/#",
        "resonator/v1/lab/dev/+/dn/#",
        "resonator/v1/lab/dev/box/dn/kernel",
        "resonator/v1/+/client/+/+/#",
        "resonator/v1/lab/jobs/+/status",
        "$share/group/resonator/v1/lab/dev/box/dn/#",
        STATE,
    )
    async with (
        connected(fleet, url, HUB) as hub,
        connected(fleet, url, BOX, *topics.for_device("lab", "box")) as box,
    ):
        await box.says(STATE, b"kept", retain=True)
        await hub.says(topics.job_status("lab", "bobs"), b"kept", retain=True)
        async with connected(fleet, url, thief, *guesses) as other:
            await hub.says(topics.device_dn("lab", "box", "kernel"), b"live")
            await hub.says(topics.client_dn("lab", "bob"), b"live")
            await hub.says(topics.job_status("lab", "bobs"), b"live")
            await box.hears(b"live")
            kind, mine = ("dev", "window") if thief.role == "device" else ("client", "answer")
            await hub.says(f"resonator/v1/lab/{kind}/{thief.name}/dn/{mine}", b"the end")
            await other.hears(b"the end")
            assert set(other.payloads) == {b"the end"}


async def test_attack_acl_a_last_will_at_somebody_elses_place_is_not_carried_out(
    fleet: Fleet, url: str
) -> None:
    will = Will(STATE, b"the box is gone", retain=True)
    async with connected(fleet, url, HUB, *topics.for_hub()) as hub:
        with contextlib.suppress(ConnectionLost):  # Mosquitto may refuse it at once
            async with connected(fleet, url, OTHER, will=will) as other:
                other.hang_up()
        async with connected(fleet, url, BOX) as box:
            await box.says(RESULT, b"the end")
        await hub.hears(b"the end")
        assert hub.payloads == [b"the end"]


async def test_attack_mtls_a_packet_beyond_the_limit_ends_its_senders_connection_alone(
    fleet: Fleet, url: str
) -> None:
    async with (
        connected(fleet, url, HUB, *topics.for_hub()) as hub,
        connected(fleet, url, BOX) as box,
        connected(fleet, url, OTHER) as other,
    ):
        with pytest.raises(ConnectionLost):
            await other.says(topics.device_up("lab", "other", "result"), bytes(MAX_PACKET_BYTES))
        await box.says(RESULT, b"the end")
        await hub.hears(b"the end")
        assert hub.payloads == [b"the end"]


async def test_attack_mtls_who_knows_a_client_id_throws_its_owner_out_so_that_of_the_hub_is_nobodys_to_guess(
    fleet: Fleet, url: str
) -> None:
    settings, credentials = HubSettings(site="lab"), Credentials.load(fleet.place(HUB))
    other = Credentials.load(fleet.place(OTHER))
    secret = client_id(settings, credentials, "a database")
    async with connected(fleet, url, HUB, *topics.for_hub(), called=secret) as hub:
        for guess in ("hub-lab-main", client_id(settings, other, "a database")):
            assert guess != secret
            async with connected(fleet, url, OTHER, called=guess):
                pass
        async with connected(fleet, url, BOX) as box:
            await box.says(RESULT, b"the end")
        await hub.hears(b"the end")
        async with connected(fleet, url, OTHER, called=secret):
            assert await asyncio.wait_for(hub.connection.ended(), PATIENCE_S)
