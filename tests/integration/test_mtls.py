"""A real Mosquitto, configured by us: each of the fleet speaks and listens at his own place, nobody else."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path

import pytest

from fakes.fleet_authority import ANN, BOB, BOX, HUB, OTHER, VIEWER, Fleet, guarded
from fakes.somebody import connected, say
from resonator.bus import topics
from resonator.bus.connection import ConnectionLost
from resonator.trust import Party

RETAINED = topics.device_up("lab", "box", "state")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


async def test_mtls_the_fleet_speaks_over_the_broker(fleet: Fleet) -> None:
    async with (
        guarded(fleet) as url,
        connected(url, fleet.tls(HUB), "hub") as hub,
        connected(url, fleet.tls(BOX), "box") as box,
        connected(url, fleet.tls(ANN), "ann") as ann,
    ):
        assert await hub.connection.subscribe(topics.for_hub()) == []
        assert await box.connection.subscribe(topics.for_device("lab", "box")) == []
        assert await ann.connection.subscribe([*topics.for_client("lab", "ann"), topics.hubs()]) == []
        await say(box, topics.device_up("lab", "box", "result"), b"a result")
        await say(ann, topics.client_up("lab", "ann"), b"a request")
        await hub.hears(b"a result")
        await hub.hears(b"a request")
        await say(hub, topics.device_dn("lab", "box", "kernel"), b"a kernel")
        await say(hub, topics.client_dn("lab", "ann"), b"an answer")
        await say(hub, topics.hub_state("lab", "main"), b"here I am", retain=True)
        await box.hears(b"a kernel")
        await ann.hears(b"an answer")
        await ann.hears(b"here I am")


@pytest.mark.parametrize("thief", [OTHER, ANN], ids=lambda party: str(party.role))
async def test_acl_attack_at_somebody_elses_place_reaches_nobody(fleet: Fleet, thief: Party) -> None:
    async with (
        guarded(fleet) as url,
        connected(url, fleet.tls(HUB), "hub") as hub,
        connected(url, fleet.tls(BOX), "box") as box,
        connected(url, fleet.tls(thief), "thief") as other,
    ):
        await hub.connection.subscribe(topics.for_hub())
        await box.connection.subscribe(topics.for_device("lab", "box"))
        await say(box, RETAINED, b"retained", retain=True)
        await other.connection.subscribe(["#"])
        forged = (
            topics.device_up("lab", "box", "result"),
            topics.device_dn("lab", "box", "kernel"),
            topics.client_up("lab", "bob"),
            topics.hub_state("lab", "main"),
            topics.job_status("lab", "job"),
        )
        for topic in forged:
            await say(other, topic, b"forged")
        await say(hub, topics.device_dn("lab", "box", "kernel"), b"a kernel")
        await say(hub, topics.client_dn("lab", "bob"), b"an answer")
        await box.hears(b"a kernel")
        # What the thief may hear comes last, in order: had there been anything before it, he had heard it.
        kind, mine = ("dev", "window") if thief.role == "device" else ("client", "answer")
        await say(hub, f"resonator/v1/lab/{kind}/{thief.name}/dn/{mine}", b"the end")
        await other.hears(b"the end")
        await say(box, topics.device_up("lab", "box", "result"), b"the end")
        await hub.hears(b"the end")
        assert [one.payload for one in other.heard] == [b"the end"]
        assert b"forged" not in [one.payload for one in (*hub.heard, *box.heard)]


async def test_acl_a_viewer_sees_jobs_and_devices_and_submits_nothing(fleet: Fleet) -> None:
    async with (
        guarded(fleet) as url,
        connected(url, fleet.tls(HUB), "hub") as hub,
        connected(url, fleet.tls(VIEWER), "vera") as vera,
        connected(url, fleet.tls(BOB), "bob") as bob,
    ):
        for one in (vera, bob):
            await one.connection.subscribe(["resonator/v1/lab/client/+/dn/#", "resonator/v1/lab/jobs/#"])
        await say(hub, topics.job_status("lab", "job"), b"running")
        await vera.hears(b"running")
        await say(hub, topics.client_dn("lab", "bob"), b"the end")
        await bob.hears(b"the end")
        assert [one.payload for one in bob.heard] == [b"the end"]


async def refusal(url: str, tls: ssl.SSLContext) -> str:
    """Return why a connection does not come about."""
    with pytest.raises(ConnectionLost) as caught:
        async with connected(url, tls, "intruder"):
            pytest.fail("an intruder was let in")
    return str(caught.value)


def nobody(fleet: Fleet) -> ssl.SSLContext:
    """Trusts the fleet's broker, and has no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(fleet.folder / "ca.crt")
    return context


async def test_mtls_attack_without_a_valid_certificate_does_not_get_in(fleet: Fleet, tmp_path: Path) -> None:
    old, gone = Party("device", "lab", "old"), Party("device", "lab", "gone")
    fleet.enrol(old, timedelta(minutes=-1))
    fleet.enrol(gone)
    fleet.revoke(gone)
    stranger = Fleet(tmp_path / "another").tls(BOX)
    stranger.load_verify_locations(fleet.folder / "ca.crt")
    async with guarded(fleet) as url, connected(url, fleet.tls(BOX), "box") as box:
        await say(box, RETAINED, b"retained", retain=True)
        for intruder in (nobody(fleet), fleet.tls(old), fleet.tls(gone), stranger):
            assert "not known there, or not valid" in await refusal(url, intruder)


async def test_mtls_attack_by_a_broker_of_another_fleet_or_at_another_address(
    fleet: Fleet, tmp_path: Path
) -> None:
    foreign = Fleet(tmp_path / "another")
    async with guarded(foreign) as url:
        assert "certificate verify failed" in await refusal(url, fleet.tls(BOX))
    async with guarded(fleet) as url:
        assert "certificate verify failed" in await refusal(
            url.replace("127.0.0.1", "localhost"), fleet.tls(BOX)
        )
