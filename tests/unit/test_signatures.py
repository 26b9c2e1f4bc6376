"""Signed messages: what others say in somebody's name, elsewhere, or with a changed byte is not heard."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.fleet_authority import ANN, BOX, HUB, OTHER, VIEWER, Fleet
from resonator.bus import codec, topics
from resonator.bus.gate import Gate
from resonator.bus.peer import Peer, Received
from resonator.bus.port import Delivery
from resonator.errors import MessageInvalid
from resonator.messages import BlobRef, KernelPush, KernelResult, Message, WindowGrant
from resonator.trust import Credentials, Party
from resonator.trust.seal import Seal, SignatureInvalid
from resonator_hub.authority import authority

KERNEL = topics.device_dn("lab", "box", "kernel")
RESULT = topics.device_up("lab", "box", "result")
PUSH = KernelPush(epoch=3, job="job", candidate="job/t0/c0", blob=BlobRef(digest="a" * 64, size=10))
MEASURED = KernelResult(epoch=3, job="job", candidate="job/t0/c0", latencies=(0.001,))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("fleet"))


def seal_of(fleet: Fleet, party: Party) -> Seal:
    return Seal(Credentials.load(fleet.place(party)))


def said(by: Seal | None, topic: str, message: Message = PUSH) -> bytes:
    return codec.encode(message, id="m1", source="somebody", seq=7, topic=topic, seal=by)


def heard(by: Seal, topic: str, payload: bytes) -> codec.Decoded:
    return codec.decode(payload, partial(by.check, topic, topics.parse(topic)))


@pytest.mark.parametrize(
    ("speaker", "topic", "message"), [(HUB, KERNEL, PUSH), (BOX, RESULT, MEASURED)], ids=["hub", "box"]
)
def test_a_signature_of_whoever_belongs_there_is_taken(
    fleet: Fleet, speaker: Party, topic: str, message: Message
) -> None:
    listener = seal_of(fleet, BOX if speaker is HUB else HUB)
    assert heard(listener, topic, said(seal_of(fleet, speaker), topic, message)).message == message


@pytest.mark.parametrize(
    ("speaker", "topic"),
    [
        (OTHER, KERNEL),
        (BOX, KERNEL),
        (ANN, KERNEL),
        (OTHER, RESULT),
        (HUB, RESULT),
        (VIEWER, topics.client_up("lab", "ann")),
        (BOX, topics.hub_state("lab", "main")),
        (HUB, topics.hub_state("lab", "another")),
        (ANN, topics.job_status("lab", "job")),
    ],
)
def test_signature_attack_whoever_does_not_belong_there_is_not_heard(
    fleet: Fleet, speaker: Party, topic: str
) -> None:
    with pytest.raises(SignatureInvalid, match="has no say here"):
        heard(seal_of(fleet, BOX), topic, said(seal_of(fleet, speaker), topic))


def test_signature_attack_by_substitution_for_another_device_or_epoch(fleet: Fleet) -> None:
    payload, box = said(seal_of(fleet, HUB), KERNEL), seal_of(fleet, BOX)
    with pytest.raises(SignatureInvalid, match="is not that of lab/hub/main"):
        heard(box, topics.device_dn("lab", "other", "kernel"), payload)
    with pytest.raises(SignatureInvalid, match="is not that of lab/hub/main"):
        heard(box, topics.device_dn("lab", "box", "window"), payload)
    envelope = msgpack.unpackb(payload)
    for change in ({"epoch": 4}, {"body": {**envelope["body"], "epoch": 4}}, {"src": "x"}, {"seq": 8}):
        with pytest.raises(SignatureInvalid, match="is not that of lab/hub/main"):
            heard(box, KERNEL, msgpack.packb({**envelope, **change}))


def test_signature_attack_with_signatures_left_out_swapped_or_of_another_fleet(
    fleet: Fleet, tmp_path: Path
) -> None:
    box = seal_of(fleet, BOX)
    with pytest.raises(SignatureInvalid, match="is not signed"):
        heard(box, KERNEL, said(None, KERNEL))
    mine, theirs = (msgpack.unpackb(said(seal_of(fleet, one), KERNEL)) for one in (HUB, OTHER))
    with pytest.raises(SignatureInvalid, match="is not that of lab/hub/main"):
        heard(box, KERNEL, msgpack.packb({**mine, "sig": theirs["sig"]}))
    with pytest.raises(SignatureInvalid, match="has no say here"):
        heard(box, KERNEL, msgpack.packb({**mine, "cert": theirs["cert"]}))
    with pytest.raises(SignatureInvalid, match="cannot be read"):
        heard(box, KERNEL, msgpack.packb({**mine, "cert": b"no certificate"}))
    with pytest.raises(SignatureInvalid, match="is not of this fleet"):
        heard(box, KERNEL, said(seal_of(Fleet(tmp_path), HUB), KERNEL))


def test_signature_attack_with_a_certificate_that_has_expired(fleet: Fleet) -> None:
    late = Party("hub", "lab", "late")
    fleet.enrol(late, timedelta(minutes=-1))
    with pytest.raises(SignatureInvalid, match="has expired"):
        heard(seal_of(fleet, BOX), KERNEL, said(seal_of(fleet, late), KERNEL))


def test_signature_attack_with_a_certificate_that_is_not_valid_yet(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = Party("hub", "lab", "early")
    with monkeypatch.context() as patched:
        patched.setattr(authority, "_now", lambda: datetime.now(timezone.utc) + timedelta(hours=1))
        fleet.enrol(early)
    with pytest.raises(SignatureInvalid, match="is not valid yet"):
        heard(seal_of(fleet, BOX), KERNEL, said(seal_of(fleet, early), KERNEL))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(min_value=0), flip=st.integers(min_value=1, max_value=255))
def test_signature_attack_a_changed_byte_never_changes_what_is_heard(
    fleet: Fleet, place: int, flip: int
) -> None:
    payload = bytearray(said(seal_of(fleet, HUB), KERNEL))
    payload[place % len(payload)] ^= flip
    with contextlib.suppress(MessageInvalid):
        assert heard(seal_of(fleet, BOX), KERNEL, bytes(payload)).message == PUSH


class Wire:
    """What a peer needs of a bus."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []
        self.inbox: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self.gate = Gate()

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        self.published.append((topic, payload))

    async def deliveries(self) -> AsyncIterator[Delivery]:
        while (delivery := await self.inbox.get()) is not None:
            yield delivery


async def test_trust_a_peer_signs_what_it_says_and_counts_what_it_does_not_hear(fleet: Fleet) -> None:
    wire, taken = Wire(), []
    box = Peer(wire, "lab/box", seal_of(fleet, BOX))  # type: ignore[arg-type]

    async def take(received: Received) -> None:
        taken.append(received.message)

    box.on(KernelPush, take)
    box.on(WindowGrant, take)
    good = said(seal_of(fleet, HUB), KERNEL)
    for payload in (
        said(None, KERNEL),
        said(seal_of(fleet, OTHER), KERNEL),
        good[:-1] + bytes([good[-1] ^ 1]),
        good,
    ):
        wire.inbox.put_nowait(Delivery(KERNEL, payload, False))
    wire.inbox.put_nowait(None)
    await box.serve()
    assert taken == [PUSH]
    assert sum(box.refused.values()) == 3
    await box.send(RESULT, MEASURED)
    ((topic, payload),) = wire.published
    assert heard(seal_of(fleet, HUB), topic, payload).message == MEASURED
