"""Messages of every type, damaged in every way: read as what can be written again, or refused."""

from __future__ import annotations

import tracemalloc
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.any_message import any_message
from fuzz import mutations, seeds
from resonator.bus.codec import decode, encode
from resonator.errors import MessageInvalid
from resonator.messages import MAX_MESSAGE, TYPES, Message

SIGNED = seeds.StandIn()
RANDOM = st.randoms(use_true_random=False)


def written(random: Random, wire: str | None = None) -> bytes:
    seal = SIGNED if random.random() < 0.5 else None
    return encode(any_message(random, wire), id="i", source="s/d", seq=3, corr="c", seal=seal)


def heard(data: bytes) -> Message | None:
    """Return the message, which is written and read as the same; None where it is refused, in a sentence."""
    try:
        decoded = decode(data)
    except MessageInvalid as error:
        said = str(error)
        assert 0 < len(said) < 1000
        assert said.isprintable()
        return None
    again = encode(decoded.message, id=decoded.id, source=decoded.source)
    assert decode(again).message == decoded.message
    return decoded.message


@pytest.mark.parametrize("wire", sorted(TYPES))
def test_attack_free_messages_of_every_type_are_read_as_written(wire: str) -> None:
    random = Random(wire)
    for _ in range(40):
        message = any_message(random, wire)
        assert decode(encode(message, id="i", source="s")).message == message


@pytest.mark.parametrize("wire", sorted(TYPES))
def test_attack_by_messages_that_end_too_soon(wire: str) -> None:
    data = written(Random(wire), wire)
    for length in range(len(data)):
        assert heard(data[:length]) is None


@given(RANDOM, st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 7)), min_size=1, max_size=8))
@settings(max_examples=400, deadline=None)
def test_attack_by_flipped_bits(random: Random, flips: list[tuple[int, int]]) -> None:
    data = bytearray(written(random))
    for place, bit in flips:
        data[place % len(data)] ^= 1 << bit

    heard(bytes(data))


@given(RANDOM, st.binary(min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_attack_by_bytes_behind_a_message(random: Random, more: bytes) -> None:
    assert heard(written(random) + more) is None


@given(RANDOM, st.integers(0, 2**32))
@settings(max_examples=600, deadline=None)
def test_attack_by_values_that_belong_elsewhere(random: Random, seed: int) -> None:
    data = mutations.changed(written(random), seed)
    assert data is None or isinstance(heard(data), Message | None)


def doubled(data: bytes, where: str) -> bytes:
    """Write a message anew with one key of its envelope or its body twice, the second with another value."""
    plain = msgpack.unpackb(data)
    packer = msgpack.Packer(autoreset=False)

    def write(value: dict[str, Any], twice: str | None) -> None:
        packer.pack_map_header(len(value) + (twice is not None))
        for key, content in value.items():
            packer.pack(key)
            write(content, next(iter(content))) if key == "body" == where else packer.pack(content)
        if twice is not None:
            packer.pack(twice)
            packer.pack(None)

    write(plain, None if where == "body" else where)
    return bytes(packer.bytes())


@pytest.mark.parametrize("where", ["v", "id", "sig", "cert", "epoch", "body"])
def test_attack_by_keys_that_occur_twice(where: str) -> None:
    data = written(Random(1), "kernel.result")
    with pytest.raises(MessageInvalid, match="a key occurs twice"):
        decode(doubled(data, where))


def test_attack_by_one_key_as_text_and_as_bytes() -> None:
    body = {"job": "mine", b"job": "other"}
    data = msgpack.packb({"v": 1, "id": "i", "type": "job.cancel", "src": "s", "body": body})
    with pytest.raises(MessageInvalid, match="a key is no string"):
        decode(data)


MAP = b"\x81\xa4body"
HOSTILE = {
    "an array without end": b"\xdd\xff\xff\xff\xff",
    "a map without end": b"\xdf\xff\xff\xff\xff",
    "text without end": b"\xdb\xff\xff\xff\xff",
    "bytes without end": b"\xc6\xff\xff\xff\xff",
    "an extension": b"\xc9\xff\xff\xff\xff\x05",
    "a timestamp": b"\xd7\xff" + bytes(8),
    "arrays within arrays": b"\xdd\x00\x00\x27\x10" * 1000,
    "short arrays within arrays": b"\xdc\x00\x80" * 1000,
    "maps within arrays": b"\xdc\x27\x10\x81\xa1a" * 1000,
    "maps within maps": b"\xde\x03\xe8\xa1a" * 1000,
    "arrays within arrays that could be true": b"\xdc\x0b\xb8" * 1000 + bytes(4000),
    "10000 levels": b"\x91" * 10_000 + b"\x01",
    "10000 levels of maps": b"\x81\xa1a" * 10_000 + b"\x01",
    "17 levels": MAP + b"\x91" * 17 + b"\x01",
    "an array of arrays": b"\xdd\x00\x00\x27\x10" + b"\x90" * 10_000,
    "maps as keys": b"\x81\x81\xa1a\x01\x01",
    "arrays as keys": b"\x81\x91\x01\x01",
    "numbers as keys": b"\x81\x05\x01",
    "text that is none": b"\x81\xa2v\xff\x01",
    "half of a surrogate": b"\x81\xa3\xed\xa0\x80\x01",
    "a byte that msgpack never uses": b"\xc1",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("wrapped", [False, True])
def test_attack_by_promises_costs_no_memory(data: bytes, wrapped: bool) -> None:
    data = MAP + data if wrapped else data
    tracemalloc.start()
    try:
        assert heard(data) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 2**21 + 100 * len(data)


def test_attack_by_size() -> None:
    assert heard(bytes(MAX_MESSAGE + 1)) is None
    assert heard(b"\xdd\x00\x3f\xff\xfb" + bytes(MAX_MESSAGE - 5)) is None
    assert heard(b"\xc6\x00\x3f\xff\xfb" + bytes(MAX_MESSAGE - 5)) is None


@pytest.mark.parametrize(
    "value", ["\x1b[2J\n", "x" * 60_000, "\u2028", 2**64 - 1, b"\xff" * 300, float("nan")]
)
@pytest.mark.parametrize(
    "field", ["v", "id", "type", "seq", "epoch", "body", "\x1b]0;owned\x07", "x" * 60_000]
)
def test_attack_by_what_a_refusal_repeats(field: str, value: object) -> None:
    plain = {"v": 1, "id": "i", "type": "job.query", "src": "s", "body": {}, field: value}
    heard(msgpack.packb(plain))
    assert heard(msgpack.packb({**plain, field: 1, "body": {field: value}})) is None


EMPTY = b"\x80"
MANY = b"\xdd\x00\x00\x27\x10"  # of ten thousand
FAULTS = {
    "job.list": b"\x81\xa4jobs" + MANY + EMPTY * 10_000,
    "device.list": b"\x81\xa7devices" + MANY + EMPTY * 10_000,
    "ack": b"\x81\xa3ids" + MANY + EMPTY * 10_000,
    "kernel.result": b"\x81\xa9latencies" + MANY + EMPTY * 10_000,
    "kernel.push": b"\x81\xa9arguments" + MANY + EMPTY * 10_000,
    "job.submit": b"\x81\xa4spec\x81\xa4spec\x81\xa5model\x81\xa6shapes\xde\x01\x00"
    + b"".join(b"\xa3%03d" % n + MANY + EMPTY * 10_000 for n in range(256)),
    "job.status": b"\x81\xa5tasks" + MANY + (b"\x81\xa5costs\xdc\x00\xff" + EMPTY * 255) * 10_000,
}


@pytest.mark.parametrize("wire", FAULTS)
def test_attack_by_more_faults_than_anybody_reads(wire: str) -> None:
    head = b"\x85\xa1v\x01\xa2id\xa1i\xa4type" + msgpack.packb(wire) + b"\xa3src\xa1s\xa4body"
    data = head + FAULTS[wire]
    tracemalloc.start()
    try:
        assert heard(data) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 2**22 + 100 * len(data)


def test_a_long_list_is_read_all_the_same() -> None:
    random = Random(3)
    devices = any_message(random, "device.list").model_dump()["devices"] or (
        {"device": "a", "state": "idle"},
    )
    message = TYPES["device.list"].model_validate({"devices": devices[:1] * 3000})
    assert heard(encode(message, id="i", source="s")) == message


def test_attack_by_words_that_a_terminal_would_obey() -> None:
    said = "\x1b]0;owned\x07fan\nbroken\u202e"
    state = {"status": "idle", "session": 1, "instance": "i", "reason": said}
    result = {"job": "m", "candidate": "c", "epoch": 1, "failure": {"kind": "KERNEL_CRASH", "detail": said}}
    assert TYPES["device.state"].model_validate(state).model_dump()["reason"] == "?]0;owned?fan broken?"
    told = TYPES["kernel.result"].model_validate(result).model_dump()["failure"]["detail"]
    assert told == "?]0;owned?fan broken?"
    with pytest.raises(ValueError, match="instance"):
        TYPES["device.state"].model_validate({**state, "instance": said})
