"""Frames, tokens and certificates from anybody: read, or refused by the error that is expected."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fakes.fleet_authority import BOX, HUB, Fleet
from resonator.bus import topics
from resonator.errors import InputInvalid
from resonator.messages import KernelResult
from resonator.trust import Credentials, enrolment, invitation
from resonator.trust.invitation import Invitation
from resonator.trust.seal import Seal, SignatureInvalid
from resonator_agent import wire
from resonator_agent.profiler import _outcome

KERNEL = topics.device_dn("lab", "box", "kernel")
BODIES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff",
            b"\x91" * 3000,
            b"\x81\x91\x01\x01",
            b"\x81\xa1\xff\x01",
            b"\xd6\xff\x00\x00\x00\x00",
            b"\xc1",
            b"\x80",
            b"\x80\x80",
        ]
    ),
)


async def read_from(data: bytes, read: Any) -> Any:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await read(reader)


def framed(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


@given(BODIES)
@settings(max_examples=300, deadline=None)
async def test_attack_by_frames_of_a_profiler_or_a_box(body: bytes) -> None:
    for read in (wire.read, enrolment.read_frame):
        for data in (framed(body), framed(body)[:-1], body):
            with contextlib.suppress(EOFError):
                assert isinstance(await read_from(data, read), dict)


@given(BODIES)
@settings(max_examples=100, deadline=None)
def test_attack_by_frames_that_are_waited_for(body: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(framed(body))
        theirs.shutdown(socket.SHUT_WR)
        with contextlib.suppress(EOFError):
            assert isinstance(wire.read_blocking(ours), dict)


@pytest.mark.parametrize("most", [wire.MAX_FRAME, enrolment.MAX_FRAME])
async def test_attack_by_frames_that_promise_much(most: int) -> None:
    read = wire.read if most == wire.MAX_FRAME else enrolment.read_frame
    for size in (most + 1, 2**32 - 1):
        with pytest.raises(EOFError, match=f"a frame of {size} bytes"):
            await read_from(struct.pack(">I", size), read)


ANSWERS = st.dictionaries(
    st.sampled_from(["failure", "detail", "latencies", "raced", "error"]),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats()
        | st.text(max_size=8)
        | st.binary(max_size=8)
        | st.sampled_from(["KERNEL_CRASH", "x" * 5000, "\x1b[2J\n", "nan", "1e5"]),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    ),
)


@given(ANSWERS)
@example({"latencies": [1e-3] * 5000, "raced": False})
@example({"latencies": [1e-3], "raced": False, "error": float("nan")})
@example({"latencies": [1e-3], "raced": False, "error": -1.0})
@example({"failure": "KERNEL_CRASH", "detail": "\x1b]0;owned\x07" * 1000})
@settings(max_examples=300, deadline=None)
def test_attack_by_what_a_profiler_answers(answer: dict[str, Any]) -> None:
    """A kernel can write into the process that measures it: an agent survives whatever that says."""
    outcome = _outcome(answer)
    result = {"latencies": outcome.latencies, "raced": outcome.raced, "error": outcome.error}
    KernelResult.model_validate({"job": "m", "candidate": "c", "epoch": 1, **result})
    if outcome.failure is not None:
        assert len(outcome.failure.detail) <= 500
        assert outcome.failure.detail.isprintable()


@given(st.text(max_size=200))
@example("rt1:lab:" + "A" * 22 + ":" + "0" * 64 + "\n\n")
@example("rt1:-lab:" + "A" * 22 + ":" + "0" * 64)
@example("rt1:lab/dev:" + "A" * 22 + ":" + "0" * 64)
@example("rt1:lab:" + "A" * 22 + ":" + "\u0660" * 64)
def test_attack_by_tokens_that_nobody_printed(text: str) -> None:
    with contextlib.suppress(InputInvalid):
        assert str(invitation.parse(text)) == text.strip()


@given(st.integers(0, 200), st.characters())
def test_attack_by_a_token_with_a_changed_sign(place: int, sign: str) -> None:
    text = str(Invitation.new("lab", "0" * 64))
    place %= len(text)
    changed = text[:place] + sign + text[place + 1 :]
    with contextlib.suppress(InputInvalid):
        assert str(invitation.parse(changed)) == changed.strip()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("fleet"))


@given(st.randoms(use_true_random=False), st.integers(1, 6))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_attack_by_damaged_certificates(fleet: Fleet, random: Random, changes: int) -> None:
    hub, box = (Seal(Credentials.load(fleet.place(party))) for party in (HUB, BOX))
    signature = hub.sign(KERNEL, b"content")
    address = topics.parse(KERNEL)
    assert box.check(KERNEL, address, b"content", hub.certificate, signature) == HUB
    damaged = bytearray(hub.certificate)
    for _ in range(changes):
        place = random.randrange(len(damaged))
        match random.randrange(3):
            case 0:
                damaged[place] = random.randrange(256)
            case 1:
                del damaged[place:]
                break
            case _:
                damaged[place:place] = random.randbytes(random.randrange(4))
    if damaged == hub.certificate or not damaged:
        return
    with pytest.raises(SignatureInvalid) as raised:
        box.check(KERNEL, address, b"content", bytes(damaged), signature)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 1000


def test_attack_by_the_authoritys_own_certificate(fleet: Fleet) -> None:
    box = Seal(Credentials.load(fleet.place(BOX)))
    for authority in box._issuers:
        shown = authority.public_bytes(Encoding.DER)
        with pytest.raises(SignatureInvalid):
            box.check(KERNEL, topics.parse(KERNEL), b"content", shown, bytes(64))
    assert box._issuers
