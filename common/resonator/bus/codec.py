"""Bytes <-> messages: a msgpack envelope `{v, id, type, src, seq, reply_to, corr, epoch, body, sig}`.

No meaning lives in MQTT properties, since bridges strip them. Limits are checked before memory is spent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import msgpack
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from resonator.bus import nesting
from resonator.errors import MessageInvalid
from resonator.jobspec import explain, shown
from resonator.messages import MAX_MESSAGE, TYPES, VERSION, Count, Identifier, Message
from resonator.trust.party import Party

MAX_DEPTH = 16
_TOO_DEEP = f"the message is nested deeper than {MAX_DEPTH} levels, or promises more than it holds"
_LIMITS = {"max_str_len": 64 * 1024, "max_bin_len": MAX_MESSAGE, "max_ext_len": 0}
_CONTAINERS = (dict, list)
_FEW = {"max_array_len": 128, "max_map_len": 64}
_MANY = {"max_array_len": 10_000, "max_map_len": 1000}
_PROMISED = re.compile(r"(\d+) exceeds max_(?:array|map)_len")


class Envelope(BaseModel):
    """What surrounds every body: who says it (`src`), its unique `id`, and what it answers (`corr`).

    `seq` counts the messages of one source since its start; `reply_to` is the topic that answers go to;
    `at` is when it was said by the sender's clock, in seconds since the epoch; `sig` is the signature over
    topic and envelope, `sig` and `cert` null, by the key of `cert` (DER).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    v: int
    id: Identifier
    type: Annotated[str, StringConstraints(max_length=64)]
    src: Identifier
    seq: Count = 0
    reply_to: Annotated[str, StringConstraints(max_length=512)] | None = None
    corr: Identifier | None = None
    epoch: Count = 0
    at: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    body: dict[str, Any] = Field(default_factory=dict)
    sig: Annotated[bytes, Field(max_length=256)] | None = None
    cert: Annotated[bytes, Field(max_length=2048)] | None = None


class Seals(Protocol):
    """Signs what is said on a topic."""

    certificate: bytes

    def sign(self, topic: str, content: bytes) -> bytes:
        """Return the signature."""


Check = Callable[[bytes, "bytes | None", "bytes | None"], Party]
"""Takes what was signed, the signer's certificate and the signature; returns him or raises MessageInvalid."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A message with what its envelope said, and who signed it, where signatures are asked for."""

    message: Message
    id: str
    source: str
    seq: int = 0
    reply_to: str | None = None
    corr: str | None = None
    party: Party | None = None
    at: float | None = None


def encode(
    message: Message,
    *,
    id: str,
    source: str,
    seq: int = 0,
    reply_to: str | None = None,
    corr: str | None = None,
    at: float | None = None,
    topic: str = "",
    seal: Seals | None = None,
) -> bytes:
    """Write a message, with `seal` signed for `topic`; raises `MessageInvalid` beyond the size limit."""
    envelope = {
        "v": VERSION,
        "id": id,
        "type": message.wire,
        "src": source,
        "seq": seq,
        "reply_to": reply_to,
        "corr": corr,
        "epoch": getattr(message, "epoch", 0),
        "at": at,
        "body": message.model_dump(mode="python", exclude_defaults=True, by_alias=True),
        "sig": None,
        "cert": None,
    }
    data = _pack(envelope)
    if seal is not None:
        data = _pack({**envelope, "sig": seal.sign(topic, data), "cert": seal.certificate})
    if len(data) > MAX_MESSAGE:
        raise MessageInvalid(f"a {message.wire} of {len(data)} bytes is beyond the limit of {MAX_MESSAGE}")
    return data


def decode(data: bytes, check: Check | None = None) -> Decoded:
    """Read a message; raises `MessageInvalid` with one sentence for whatever is not one of ours.

    `check` is asked before the body is looked at.
    """
    plain = _unpacked(data)
    envelope = _envelope(plain)
    party = None
    if check is not None:
        party = check(_pack({**plain, "sig": None, "cert": None}), envelope.cert, envelope.sig)
    kind = TYPES.get(envelope.type)
    if kind is None:
        raise MessageInvalid(f"unknown message type {shown(envelope.type)}")
    try:
        message = kind.model_validate(envelope.body)
    except ValidationError as error:
        raise MessageInvalid(f"{envelope.type}: {explain(error)}") from error
    if getattr(message, "epoch", 0) != envelope.epoch:
        raise MessageInvalid(f"{envelope.type}: the envelope's epoch differs from the body's")
    return Decoded(
        message, envelope.id, envelope.src, envelope.seq, envelope.reply_to, envelope.corr, party, envelope.at
    )


def _pack(envelope: dict[str, Any]) -> bytes:
    data: bytes = msgpack.packb(envelope, default=_plain)
    return data


def _unpacked(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_MESSAGE:
        raise MessageInvalid(f"a message of {len(data)} bytes is beyond the limit of {MAX_MESSAGE}")
    try:
        plain = _parsed(data)
    except (ValueError, msgpack.UnpackException) as error:
        raise MessageInvalid(
            f"the message is not msgpack within limits: {str(error) or type(error).__name__}"
        ) from error
    if not isinstance(plain, dict):
        raise MessageInvalid(f"a message is a msgpack map, this is {type(plain).__name__}")
    _check_depth(plain)
    return plain


def _parsed(data: bytes) -> Any:
    """Parse with little room for what containers promise; with more only after a look at all of them."""
    try:
        return msgpack.unpackb(data, object_pairs_hook=_unique, **_LIMITS, **_FEW)
    except ValueError as error:
        promised = _PROMISED.match(str(error))
        if promised is None:
            raise
    if int(promised[1]) > len(data) or nesting.too_deep(data, MAX_DEPTH):
        raise MessageInvalid(_TOO_DEEP)
    return msgpack.unpackb(data, object_pairs_hook=_unique, **_LIMITS, **_MANY)


def _envelope(plain: dict[str, Any]) -> Envelope:
    if plain.get("v") != VERSION:
        raise MessageInvalid(f"schema version {shown(plain.get('v'))} is not spoken here, only {VERSION}")
    try:
        return Envelope.model_validate(plain)
    except ValidationError as error:
        raise MessageInvalid(f"envelope: {explain(error)}") from error


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice in one map")
    try:
        "".join(result)  # bytes are keys too, and would be taken for the string of the same letters
    except TypeError:
        raise ValueError("a key is no string") from None
    return result


def _check_depth(value: dict[Any, Any]) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        items = (item.values() if type(item) is dict else item for item in level)
        level = [child for children in items for child in children if type(child) in _CONTAINERS]
        if not level:
            return
    raise MessageInvalid(_TOO_DEEP)


def _plain(value: object) -> object:
    return getattr(value, "value", None) or list(value)  # type: ignore[call-overload]
