"""The codec: what is written is read again, and of anything else only `MessageInvalid` escapes."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resonator.bus import codec
from resonator.bus.codec import Decoded, decode, encode
from resonator.errors import MessageInvalid
from resonator.failures import Failure, FailureKind
from resonator.jobspec import Measure, validate
from resonator.messages import (
    MAX_CHUNK,
    MAX_MESSAGE,
    TYPES,
    Ack,
    Activity,
    BlobChunk,
    BlobRef,
    Conditions,
    DeviceState,
    Identity,
    JobQuery,
    JobState,
    JobStatus,
    JobSubmit,
    KernelPush,
    KernelResult,
    Latency,
    Message,
    Offer,
    Rejected,
    Status,
    TaskStatus,
    WindowGrant,
)
from resonator.tensors import TensorSpec

DIGEST = "ab" * 32
IDENTITY = Identity(
    architecture="x86_64",
    cpu_model="Some CPU",
    extensions=("avx2",),
    cores=4,
    cores_used=(1, 2),
    memory=2**34,
    tvm_version="0.27",
    agent_version="0.1.0",
    labels={"model": "el300"},
    offers=(Offer(kind="cpu", target='{"kind": "llvm"}'),),
)
JOB = validate({"metadata": {"name": "m"}, "spec": {"model": {"onnx": "m.onnx"}, "target": {"kind": "cpu"}}})
LATENCY = Latency(median=0.01, low=0.009, high=0.02, device="s/d", error=float("inf"))
MESSAGES: list[Message] = [
    DeviceState(status=Status.RUNNING, session=3, instance="i", epoch=7, identity=IDENTITY, credit=2**20),
    WindowGrant(epoch=2**61, job="m-1", duration=20.0, measure=Measure()),
    KernelPush(
        epoch=1,
        job="m-1",
        candidate="m-1/t0/c3",
        blob=BlobRef(digest=DIGEST, size=3, data=b"\x00\xff\x80"),
        arguments=(TensorSpec(name="a", shape=(1, 3), dtype="float32"),),
        race_s=0.001,
    ),
    KernelResult(
        job="m-1", candidate="c", epoch=1, latencies=(0.1, 0.2), conditions=Conditions(foreign_load=0.5)
    ),
    KernelResult(
        job="m-1", candidate="c", epoch=1, failure=Failure(kind=FailureKind.KERNEL_CRASH, detail="x")
    ),
    BlobChunk(digest=DIGEST, offset=0, total=MAX_CHUNK, data=bytes(MAX_CHUNK)),
    JobSubmit(job="m-1", spec=JOB, model=BlobRef(digest=DIGEST, size=10)),
    JobStatus(
        job="m-1",
        name="m",
        state=JobState.RUNNING,
        tasks=(TaskStatus(task="m-1/t0", name="conv2d", weight=2, best=0.001),),
        untuned=LATENCY,
        activities=(Activity(resource="compute 0", doing="build"),),
    ),
    Rejected(failure=Failure(kind=FailureKind.JOB_INVALID, detail="no")),
    Ack(ids=("a", "b")),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.wire)
def test_a_message_is_read_as_it_was_written(message: Message) -> None:
    data = encode(message, id="i", source="s", seq=4, reply_to="t", corr="c")

    assert decode(data) == Decoded(message, "i", "s", 4, "t", "c")


def test_fields_at_their_default_are_not_sent() -> None:
    envelope = msgpack.unpackb(encode(JobQuery(), id="i", source="s"))

    assert envelope["body"] == {}


def envelope(**changes: object) -> bytes:
    plain = {"v": 1, "id": "i", "type": "job.query", "src": "s", "body": {}, **changes}
    data: bytes = msgpack.packb(plain)
    return data


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "not msgpack"),
        (b"\xc1", "not msgpack"),
        (b"hello", "not msgpack"),
        (msgpack.packb([1]), "a msgpack map, this is list"),
        (msgpack.packb(5), "a msgpack map, this is int"),
        (msgpack.packb({}), "schema version None is not spoken here, only 1"),
        (envelope(v=2), "schema version 2 is not spoken here, only 1"),
        (envelope(type="job.conquer"), "unknown message type 'job.conquer'"),
        (envelope(id=""), "envelope: id"),
        (envelope(extra=1), "envelope: extra: extra inputs"),
        (envelope(seq=-1), "envelope: seq"),
        (envelope(body=[1]), "envelope: body"),
        (envelope(body={"job": "a/b"}), "job.query: job"),
        (envelope(body={"jobs": "a"}), "job.query: jobs: extra inputs"),
        (envelope(epoch=4), "epoch differs"),
        (envelope(type="window.close", body={"epoch": 4}, epoch=3), "epoch differs"),
        (envelope(body={"job": nested(20)}), "nested deeper than 16 levels"),
        (b"\x91" * 100_000 + b"\x01", "not msgpack within limits: StackError"),
        (b"\xdf\xff\xff\xff\xff", "promises more than it holds"),
        (b"\xc7\x04\x05abcd", "exceeds max_ext_len"),
        (b"\x82\xa1v\x01\xa1v\x01", "a key occurs twice"),
        (bytes(MAX_MESSAGE + 1), f"beyond the limit of {MAX_MESSAGE}"),
        (envelope() + b"\x00", "not msgpack within limits"),
        (envelope(body={"job": msgpack.ExtType(1, b"")}), "job.query: job"),
    ],
)
def test_bad_bytes_are_answered_with_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(MessageInvalid) as raised:
        decode(data)

    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("latency", [0.0, -1.0, float("nan"), float("inf")])
def test_a_latency_that_cannot_be_is_refused(latency: float) -> None:
    body = {"job": "m", "candidate": "c", "epoch": 1, "latencies": [latency]}

    with pytest.raises(MessageInvalid, match=r"kernel\.result: latencies\.0"):
        decode(envelope(type="kernel.result", epoch=1, body=body))


def test_a_message_beyond_the_limit_is_not_sent() -> None:
    huge = BlobChunk.model_construct(digest=DIGEST, offset=0, total=1, data=bytes(MAX_MESSAGE))

    with pytest.raises(MessageInvalid, match=f"beyond the limit of {MAX_MESSAGE}"):
        encode(huge, id="i", source="s")


@given(st.binary(max_size=400))
def test_of_random_bytes_only_message_invalid_escapes(data: bytes) -> None:
    with pytest.raises(MessageInvalid):
        decode(data)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
FIELDS = sorted({name for kind in TYPES.values() for name in kind.model_fields})
bodies = st.dictionaries(st.sampled_from(FIELDS), plain, max_size=8)


def heard(data: bytes) -> str:
    try:
        return decode(data).message.wire
    except MessageInvalid:
        return ""


@given(
    st.sampled_from(sorted(TYPES)),
    bodies,
    st.dictionaries(st.sampled_from(list(codec.Envelope.model_fields)), plain),
)
@settings(max_examples=400)
def test_of_our_own_fields_with_any_values_only_message_invalid_escapes(
    wire: str, body: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert heard(envelope(type=wire, body=body)) in ("", wire)
    assert isinstance(heard(envelope(**{"type": wire, "body": body, **changes})), str)


@given(st.sampled_from(MESSAGES), st.data())
@settings(max_examples=400)
def test_of_a_damaged_message_only_message_invalid_escapes(message: Message, data: st.DataObject) -> None:
    written = bytearray(encode(message, id="i", source="s")[:2000])
    for _ in range(data.draw(st.integers(1, 4))):
        written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))

    assert heard(bytes(written)) in {"", *TYPES}
