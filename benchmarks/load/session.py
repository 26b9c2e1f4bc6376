"""One MQTT 5 connection of a simulated agent: what agents need of the protocol, for little.

aiomqtt takes a thread for each dial, a task for each connection and five layers for each message: two
thousand of it in one process would measure themselves.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any, Protocol

import mqtt5

from resonator.bus.port import MAX_PACKET_BYTES
from resonator_hub.broker.framing import Framer, ProtocolViolation

_QOS = (mqtt5.QoS.AT_MOST_ONCE, mqtt5.QoS.AT_LEAST_ONCE)
_MOST_IDS = 65_535


class Listener(Protocol):
    """Whoever owns the connection."""

    def ready(self) -> None:
        """Hear that the broker has taken the client and its subscriptions."""

    def heard(self, topic: str, payload: bytes) -> None:
        """Take a message."""

    def lost(self) -> None:
        """Hear that the connection is gone."""


class Session(asyncio.Protocol):
    """A connection from CONNECT to its end."""

    def __init__(self, greeting: Any, filters: Sequence[str], listener: Listener) -> None:
        self._greeting = greeting
        self._filters = filters
        self._listener = listener
        self._framer = Framer(MAX_PACKET_BYTES)
        self._transport: Any = None
        self._last_id = 0
        self._wrote = False

    def connection_made(self, transport: Any) -> None:
        """Introduce the client."""
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._send(self._greeting)

    def connection_lost(self, _error: Exception | None) -> None:
        """Pass it on."""
        self._transport = None
        self._listener.lost()

    def data_received(self, data: bytes) -> None:
        """Take the packets that are whole."""
        try:
            for packet in self._framer.feed(data):
                self._take(packet)
        except ProtocolViolation:
            self.hang_up()

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """Send a message; without a connection it is lost, which is what the agent's outbox is for."""
        if self._transport is not None:
            number = self._next_id() if qos else None
            self._send(
                mqtt5.PublishPacket(topic, payload=payload, qos=_QOS[qos], retain=retain, packet_id=number)
            )

    def ping(self) -> None:
        """Tell the broker that the client lives, where nothing else has told it since the last time."""
        if self._transport is not None and not self._wrote:
            self._send(mqtt5.PingReqPacket())
        self._wrote = False

    def hang_up(self) -> None:
        """Close the socket without a goodbye."""
        if self._transport is not None:
            self._transport.abort()

    def _take(self, packet: Any) -> None:
        if isinstance(packet, mqtt5.PublishPacket):
            if packet.packet_id is not None:
                self._send(mqtt5.PubAckPacket(packet.packet_id))
            self._listener.heard(packet.topic, bytes(packet.payload or b""))
        elif isinstance(packet, mqtt5.ConnAckPacket):
            filters = [mqtt5.TopicFilter(name, max_qos=_QOS[1]) for name in self._filters]
            self._send(mqtt5.SubscribePacket(self._next_id(), filters))
        elif isinstance(packet, mqtt5.SubAckPacket):
            self._listener.ready()
        elif isinstance(packet, mqtt5.DisconnectPacket):
            self.hang_up()

    def _next_id(self) -> int:
        self._last_id = self._last_id % _MOST_IDS + 1
        return self._last_id

    def _send(self, packet: Any) -> None:
        self._wrote = True
        self._transport.write(packet.write())
