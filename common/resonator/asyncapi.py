"""The bus as an AsyncAPI 3 document, made of the messages themselves: `python -m resonator.asyncapi`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from resonator.bus.codec import Envelope
from resonator.bus.topics import ROOT
from resonator.messages import TYPES, VERSION, Message

Party = Literal["hub", "device", "client"]


@dataclass(frozen=True, slots=True)
class Channel:
    """A topic, who publishes on it, and which messages."""

    name: str
    topic: str
    sender: Party
    messages: tuple[str, ...]
    what: str


CHANNELS = (
    Channel(
        "deviceState",
        "{site}/dev/{device}/up/state",
        "device",
        ("device.state", "device.claim"),
        "A device's presence (retained, also its last will), and the claim of a starting agent to its name.",
    ),
    Channel(
        "deviceWindow",
        "{site}/dev/{device}/up/window",
        "device",
        ("window.opened", "window.refused", "window.closed"),
        "What became of the windows that the hub granted.",
    ),
    Channel(
        "deviceResult",
        "{site}/dev/{device}/up/result",
        "device",
        ("kernel.result",),
        "Measurements, repeated until the hub has acknowledged them.",
    ),
    Channel(
        "deviceTelemetry",
        "{site}/dev/{device}/up/telemetry",
        "device",
        ("device.telemetry",),
        "How the box is, every few seconds at QoS 0.",
    ),
    Channel(
        "deviceBlobUp",
        "{site}/dev/{device}/up/blob",
        "device",
        ("blob.request",),
        "A device asks for pieces of a large kernel or bundle.",
    ),
    Channel(
        "deviceTrustUp",
        "{site}/dev/{device}/up/trust",
        "device",
        ("certificate.request", "revocations.query"),
        "A device asks for its next certificate, and for whom it has to hear no longer.",
    ),
    Channel(
        "deviceTrustDown",
        "{site}/dev/{device}/dn/trust",
        "hub",
        ("certificate.issued", "revocations.known", "rejected"),
        "The hub's answers; `corr` is the id of the request.",
    ),
    Channel(
        "windowGrant",
        "{site}/dev/{device}/dn/window",
        "hub",
        ("window.grant", "window.close"),
        "Windows granted and ended.",
    ),
    Channel(
        "kernelPush",
        "{site}/dev/{device}/dn/kernel",
        "hub",
        ("kernel.push",),
        "Kernels to stage and measure.",
    ),
    Channel(
        "deviceAck",
        "{site}/dev/{device}/dn/ack",
        "hub",
        ("ack",),
        "Results that the hub keeps for good; the device may forget them.",
    ),
    Channel(
        "deviceBlobDown",
        "{site}/dev/{device}/dn/blob",
        "hub",
        ("blob.chunk", "blob.absent"),
        "Pieces of what the device asked for.",
    ),
    Channel("hubState", "{site}/hub/{hub}/state", "hub", ("hub.state",), "A hub's presence (retained)."),
    Channel(
        "clientRequest",
        "{site}/client/{client}/up/request",
        "client",
        (
            "job.submit",
            "job.cancel",
            "job.query",
            "bench.request",
            "device.query",
            "site.query",
            "device.drain",
            "device.undrain",
        ),
        "What a client asks of the hub.",
    ),
    Channel(
        "clientAnswer",
        "{site}/client/{client}/dn/answer",
        "hub",
        ("job.accepted", "rejected", "job.status", "job.list", "device.list", "site.list"),
        "The hub's answers; `corr` is the id of the request.",
    ),
    Channel(
        "clientBlobUp",
        "{site}/client/{client}/up/blob",
        "client",
        ("blob.request", "blob.chunk", "blob.absent"),
        "A client asks for pieces of a bundle, and hands out pieces of its model.",
    ),
    Channel(
        "clientBlobDown",
        "{site}/client/{client}/dn/blob",
        "hub",
        ("blob.request", "blob.chunk", "blob.absent"),
        "The hub asks for pieces of a model, and hands out pieces of a bundle.",
    ),
    Channel(
        "jobStatus",
        "{site}/jobs/{job}/status",
        "hub",
        ("job.status",),
        "All that is known of a job (retained), at each change.",
    ),
)


def document() -> dict[str, Any]:
    """Return the AsyncAPI document as plain data."""
    kinds = list(TYPES.values())
    parts: list[type[BaseModel]] = [*kinds, Envelope]
    bodies, schemas = models_json_schema(
        [(part, "validation") for part in parts], ref_template="#/components/schemas/{model}"
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Resonator",
            "version": str(VERSION),
            "description": "Every message is a msgpack map, the envelope; its `type` names the message and "
            "its `body` holds the message's fields; those at their default may be left out.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/msgpack",
        "channels": {channel.name: _channel(channel) for channel in CHANNELS},
        "operations": {f"{channel.sender}-{channel.name}": _operation(channel) for channel in CHANNELS},
        "components": {
            "messages": {kind.wire: _message(kind, bodies[kind, "validation"]) for kind in kinds},
            "schemas": schemas["$defs"],
        },
    }


def _channel(channel: Channel) -> dict[str, Any]:
    names = [part.strip("{}") for part in channel.topic.split("/") if part.startswith("{")]
    return {
        "address": f"{ROOT}/{channel.topic}",
        "description": channel.what,
        "parameters": {name: {"description": f"The {name}'s name."} for name in names},
        "messages": {wire: {"$ref": f"#/components/messages/{wire}"} for wire in channel.messages},
    }


def _operation(channel: Channel) -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{channel.name}"},
        "summary": f"Sent by a {channel.sender}.",
    }


def _message(kind: type[Message], body: dict[str, Any]) -> dict[str, Any]:
    envelope = {"$ref": "#/components/schemas/Envelope"}
    own = {"type": "object", "properties": {"type": {"const": kind.wire}, "body": body}}
    summary = (kind.__doc__ or "").strip().splitlines()[0]
    return {"name": kind.wire, "summary": summary, "payload": {"allOf": [envelope, own]}}


def text() -> str:
    """Return the AsyncAPI document as YAML."""
    return yaml.safe_dump(document(), sort_keys=False, width=110, allow_unicode=True)


if __name__ == "__main__":
    sys.stdout.write(text())
