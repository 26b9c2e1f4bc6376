"""A client's session: what it subscribed to, what waits for it, and what it has not acknowledged."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import mqtt5
import structlog

from resonator_hub.broker.filters import SubscriptionTree

_log = structlog.get_logger(__name__)

NEVER_EXPIRES = 0xFFFFFFFF
MOST_QUEUED = 10_000
MOST_QUEUED_BYTES = 128 * 1024 * 1024
_PACKET_IDS = 65535
_PROPERTIES = (
    "payload_format_indicator",
    "message_expiry_interval",
    "content_type",
    "response_topic",
    "correlation_data",
    "user_properties",
)


@dataclass(frozen=True)
class Message:
    """An application message on its way through the broker.

    `qos` is a plain number: the codec's enumerations neither order nor hash, and all of them are true.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: dict[str, Any]

    @staticmethod
    def of(source: mqtt5.PublishPacket | mqtt5.Will) -> Message:
        """Take the message out of a PUBLISH packet or a will."""
        properties = {name: getattr(source, name) for name in _PROPERTIES}
        return Message(source.topic, source.payload or b"", int(source.qos), source.retain, properties)


@dataclass
class _Outgoing:
    """A message for one subscriber; `packet_id` is set from its first sending on."""

    message: Message
    packet_id: int | None = None

    def encode(self, packet_id: int | None) -> bytes:
        message = self.message
        packet = mqtt5.PublishPacket(
            message.topic,
            message.payload,
            qos=mqtt5.QoS(message.qos),
            retain=message.retain,
            packet_id=packet_id,
            duplicate=self.packet_id is not None,
            **message.properties,
        )
        data: bytes = packet.write()
        return data


class Wire(Protocol):
    """What a session needs of the connection it is attached to."""

    receive_max: int
    max_packet_bytes: int

    @property
    def writable(self) -> bool:
        """Whether the socket takes more."""

    def send(self, data: bytes) -> None:
        """Write one encoded packet."""

    def close(self, reason: mqtt5.DisconnectReasonCode | None, detail: str = "") -> None:
        """End the connection, and say why."""


class Session:
    """The state of one client id, with or without a connection.

    What waits is bounded: beyond the bounds new messages are dropped, counted in `dropped`, and logged.
    """

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.expiry_s = 0
        self.subscriptions: dict[str, mqtt5.TopicFilter] = {}
        self.dropped = 0
        self.wire: Wire | None = None
        self._queue: deque[_Outgoing] = deque()
        self._queued_bytes = 0
        self._inflight: dict[int, _Outgoing] = {}
        self._reserved: set[int | None] = set()  # ids of messages in the queue that were sent before
        self._last_id = 0

    def subscribe(self, grant: mqtt5.TopicFilter, tree: SubscriptionTree[mqtt5.TopicFilter]) -> bool:
        """Add or replace a subscription; returns whether it is new."""
        new = grant.pattern not in self.subscriptions
        self.subscriptions[grant.pattern] = grant
        tree.add(grant.pattern, self.client_id, grant)
        return new

    def unsubscribe(self, pattern: str, tree: SubscriptionTree[mqtt5.TopicFilter]) -> bool:
        """Remove a subscription; returns whether there was one."""
        if self.subscriptions.pop(pattern, None) is None:
            return False
        tree.remove(pattern, self.client_id)
        return True

    def attach(self, wire: Wire) -> None:
        """Use `wire` from now on; what was sent but not acknowledged goes first, once more."""
        self.wire = wire
        self._put_back(self._inflight.values())
        self._inflight.clear()

    def detach(self) -> None:
        """There is no connection: QoS 0 messages do not wait for the next one."""
        self.wire = None
        waiting = [item for item in self._queue if item.message.qos]
        self._queue.clear()
        self._queued_bytes = 0
        self._put_back(waiting)

    def _put_back(self, items: Iterable[_Outgoing]) -> None:
        for item in reversed(list(items)):
            self._queue.appendleft(item)
            self._queued_bytes += len(item.message.payload)
            if item.packet_id is not None:
                self._reserved.add(item.packet_id)

    def offer(self, message: Message) -> None:
        """Queue `message` for the client and send what can be sent."""
        if self.wire is None and not message.qos:
            return
        full = len(self._queue) >= MOST_QUEUED
        if full or self._queued_bytes + len(message.payload) > MOST_QUEUED_BYTES:
            self._drop(message, f"{len(self._queue)} messages wait already")
            return
        self._queue.append(_Outgoing(message))
        self._queued_bytes += len(message.payload)
        self.pump()

    def pump(self) -> None:
        """Send from the queue while the socket and the client's receive maximum allow it."""
        wire = self.wire
        while wire is not None and self._queue and wire.writable:
            item = self._queue[0]
            if item.message.qos and len(self._inflight) >= wire.receive_max:
                return
            self._queue.popleft()
            self._queued_bytes -= len(item.message.payload)
            self._send(item, wire)

    def _send(self, item: _Outgoing, wire: Wire) -> None:
        packet_id = (item.packet_id or self._free_id()) if item.message.qos else None
        self._reserved.discard(packet_id)
        data = item.encode(packet_id)
        if len(data) > wire.max_packet_bytes:
            self._drop(item.message, f"{len(data)} bytes are more than the client accepts")
            return
        if packet_id is not None:
            item.packet_id = packet_id
            self._inflight[packet_id] = item
        wire.send(data)

    def _free_id(self) -> int:
        while True:
            self._last_id = self._last_id % _PACKET_IDS + 1
            if self._last_id not in self._inflight and self._last_id not in self._reserved:
                return self._last_id

    def acknowledge(self, packet_id: int) -> None:
        """The client has taken that message; an unknown id is an echo of an earlier connection."""
        self._inflight.pop(packet_id, None)
        self.pump()

    def _drop(self, message: Message, why: str) -> None:
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:  # the 1st, 2nd, 4th, 8th...: a flood would drown the log
            _log.warning(
                f"dropped a message to {self.client_id}: {why}", topic=message.topic, dropped=self.dropped
            )


def granted(message: Message, grant: mqtt5.TopicFilter) -> Message:
    """Return `message` as the subscription `grant` receives it live."""
    qos = min(message.qos, int(grant.max_qos))
    retain = message.retain and grant.retain_as_published
    if qos == message.qos and retain == message.retain:
        return message
    return replace(message, qos=qos, retain=retain)
