"""Certificates are renewed and revoked while everybody is connected, over a real Mosquitto."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fakes.fleet_authority import ANN, BOX, HUB, OTHER, Fleet, guarded
from fakes.speakers import PATIENCE_S, Speaker, speaking
from resonator.bus import topics
from resonator.bus.connection import Connection, ConnectionLost
from resonator.bus.url import parse_broker_url
from resonator.errors import Refused
from resonator.messages import CertificateIssued, CertificateRequest
from resonator.trust import CertificateInvalid, Credentials, Party
from resonator.trust.keys import replace_certificate, signing_request
from resonator.trust.seal import Seal, SignatureInvalid
from resonator_agent.renewal import Renewal
from resonator_hub.authority.access import Access
from resonator_hub.authority.custody import Custody, own_identity
from resonator_hub.authority.register import Register
from resonator_hub.authority.renewals import MOST_VALID, Renewals

SHORT = timedelta(minutes=2)
"""A certificate that lives so long is due at once: it began five minutes ago, for clocks that are behind."""


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def brief(fleet: Fleet, role: str, name: str) -> Party:
    """Give somebody an identity that has to be renewed at once."""
    party = Party(role, "lab", name)  # type: ignore[arg-type]
    fleet.enrol(party, SHORT)
    return party


async def ask(speaker: Speaker, request: bytes) -> CertificateIssued:
    """Ask for a certificate as a device does."""
    up, dn = (one("lab", speaker.party.name, "trust") for one in (topics.device_up, topics.device_dn))
    message = CertificateRequest(request=request)
    return await speaker.peer.request(up, message, CertificateIssued, reply_to=dn, timeout=PATIENCE_S)


@contextlib.asynccontextmanager
async def hub(fleet: Fleet, url: str, authority: Access | None) -> AsyncIterator[Speaker]:
    async with speaking(fleet, url, HUB, *topics.for_hub()) as speaker:
        renewals = Renewals(speaker.peer, speaker.seal, authority)
        try:
            yield speaker
        finally:
            await renewals.close()


def device(fleet: Fleet, url: str, party: Party) -> contextlib.AbstractAsyncContextManager[Speaker]:
    return speaking(fleet, url, party, *topics.for_device("lab", party.name))


@contextlib.asynccontextmanager
async def kept(speaker: Speaker, renewed: Callable[[], None]) -> AsyncIterator[Renewal]:
    """The part of an agent that asks the hub."""
    renewal = Renewal(speaker.peer, speaker.seal, speaker.tls, renewed)
    asking = asyncio.create_task(renewal.run())
    try:
        yield renewal
    finally:
        asking.cancel()


async def test_trust_a_box_renews_its_certificate_and_connects_with_it(fleet: Fleet) -> None:
    box = brief(fleet, "device", "brief")
    key = (fleet.place(box) / "own.key").read_bytes()
    done = asyncio.Event()
    async with (
        guarded(fleet) as url,
        hub(fleet, url, Access(fleet.folder)),
        device(fleet, url, box) as speaker,
    ):
        async with kept(speaker, done.set) as renewal:
            renewal.connected()
            await asyncio.wait_for(done.wait(), PATIENCE_S)
        found = Credentials.load(fleet.place(box))
        assert found.party == box
        assert found.valid_until - datetime.now(timezone.utc) > timedelta(days=80)
        assert (fleet.place(box) / "own.key").read_bytes() == key
        connected = asyncio.Event()

        async def again() -> None:
            connected.set()

        speaker.bus.on_connect(again)
        speaker.bus.reconnect("a new certificate")
        await asyncio.wait_for(connected.wait(), PATIENCE_S)
        with pytest.raises(Refused, match="asks for a certificate of lab/dev/other"):
            await ask(speaker, signing_request(OTHER, Ed25519PrivateKey.generate()))


async def test_trust_a_hub_without_the_authority_says_so(fleet: Fleet) -> None:
    async with guarded(fleet) as url, hub(fleet, url, None), device(fleet, url, BOX) as box:
        with pytest.raises(Refused, match="this hub keeps no authority"):
            await ask(box, signing_request(BOX, Ed25519PrivateKey.generate()))


async def test_trust_attack_with_signing_requests_without_end_or_meaning(fleet: Fleet) -> None:
    key = Ed25519PrivateKey.generate()
    async with guarded(fleet) as url, hub(fleet, url, Access(fleet.folder)), device(fleet, url, BOX) as box:
        for request, reason in ((b"x", "cannot be read"), (b"\x30" * 4000, "cannot be read")):
            with pytest.raises(Refused, match=reason):
                await ask(box, request)
        for _ in range(MOST_VALID - 1):
            assert (await ask(box, signing_request(BOX, key))).chain
        with pytest.raises(Refused, match=f"has {MOST_VALID} valid certificates already"):
            await ask(box, signing_request(BOX, key))


def test_trust_attack_a_certificate_for_another_key_or_party_takes_no_ones_place(fleet: Fleet) -> None:
    mine, theirs = fleet.place(BOX), fleet.place(OTHER)
    before = (mine / "own.crt").read_bytes()
    for chain in ((theirs / "own.crt").read_bytes(), b"no certificate"):
        with pytest.raises(CertificateInvalid):
            replace_certificate(mine, chain)
    assert (mine / "own.crt").read_bytes() == before


async def test_trust_who_was_revoked_is_heard_no_more(fleet: Fleet) -> None:
    """A stolen hub's key tells a box nothing, once the box has the list; nor does a box's tell the hub."""
    second = Party("hub", "lab", "second")
    fleet.enrol(second)
    fleet.revoke(second)
    fleet.revoke(OTHER)
    stolen, list_ = Seal(Credentials.load(fleet.place(second))), (fleet.folder / "revoked.crl").read_bytes()
    async with guarded(fleet) as url, hub(fleet, url, None) as main, device(fleet, url, BOX) as box:
        assert main.seal.learn(list_)
        async with kept(box, pytest.fail) as renewal:
            learnt = asyncio.create_task(until(lambda: len(box.seal.revocations.serials) == 2))
            renewal.connected()
            await asyncio.wait_for(learnt, PATIENCE_S)
    topic = topics.device_dn("lab", "box", "window")
    for listener, speaker, where in (
        (box.seal, stolen, topic),
        (main.seal, Seal(Credentials.load(fleet.place(OTHER))), topics.device_up("lab", "other", "result")),
        (Seal(Credentials.load(fleet.place(BOX))), stolen, topic),  # after a restart of the box, too
    ):
        with pytest.raises(SignatureInvalid, match="was revoked"):
            listener.check(where, topics.parse(where), b"x", speaker.certificate, speaker.sign(where, b"x"))
    assert not box.seal.learn(list_), "the same list is no news"
    for other in (b"no list", (Fleet(fleet.folder.parent / "foreign").folder / "revoked.crl").read_bytes()):
        with pytest.raises(CertificateInvalid, match="the list of revocations"):
            box.seal.learn(other)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def test_trust_a_hub_that_keeps_the_authority_renews_its_own_certificate(fleet: Fleet) -> None:
    access = Access(fleet.folder)
    own = Party("hub", "lab", "own")
    folder = own_identity(access, own)
    seal = Seal(Credentials.load(folder))
    assert own_identity(access, own) == folder, "there is one already"
    assert Seal(Credentials.load(folder)).certificate == seal.certificate
    with access.opened() as authority:
        authority.renew_in(folder, own, SHORT)
    seal.renew()
    done = asyncio.Event()
    seen: list[Register] = []
    custody = Custody(access, seal, seal.credentials.context(), done.set, seen.append)
    keeping = asyncio.create_task(custody.run())
    await asyncio.wait_for(done.wait(), PATIENCE_S)
    await asyncio.wait_for(until(lambda: bool(seen)), PATIENCE_S)
    keeping.cancel()
    assert [entry.party for entry in seen[0]].count(own) == 3
    assert seal.credentials.valid_until - datetime.now(timezone.utc) > timedelta(days=80)
    assert seal.revocations.number > 0


async def test_mtls_a_running_mosquitto_lets_in_and_out_as_the_fleet_changes(
    fleet: Fleet, tmp_path: Path
) -> None:
    """The lists of a broker below the authority's folder are written, and read again, at each change."""
    broker = Party("broker", "lab", "below")
    with Access(fleet.folder).opened() as authority:
        fleet.broker = authority.place(broker.user)
        authority.enrol(broker, fleet.broker, hosts=["127.0.0.1"])
    new = Party("hub", "lab", "new")
    async with guarded(fleet) as url:
        address = parse_broker_url(url)
        fleet.enrol(new)
        connect = partial(Connection, address, keepalive_s=15, will=None, sink=lambda _: None)
        for name, party, filters in (("new", new, topics.for_hub()), ("ann", ANN, topics.hubs())):
            connection = connect(client_id=name, tls=fleet.tls(party))
            await connection.open()
            wanted = [filters] if isinstance(filters, str) else list(filters)
            assert await connection.subscribe(wanted) == []
            await connection.close()
        fleet.revoke(ANN)
        await until_refused(partial(connect, client_id="ann", tls=fleet.tls(ANN)))


async def until_refused(connect: Callable[[], Connection]) -> None:
    """Connect until the broker has read its new list and refuses."""

    async def try_again() -> None:
        while True:
            connection = connect()
            try:
                await connection.open()
            except ConnectionLost:
                return
            await connection.close()

    await asyncio.wait_for(try_again(), PATIENCE_S)
