"""One connection to the broker, from CONNECT to its end: aiomqtt with its sharp edges taken off."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable
from functools import partial
from typing import cast

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from resonator.bus.port import MAX_PACKET_BYTES, Delivery, Will
from resonator.bus.url import BrokerAddress

Sink = Callable[[Delivery], None]

ANSWER_TIMEOUT_S = 10.0
"""How long CONNECT, SUBSCRIBE and DISCONNECT may go unanswered."""

# paho and aiomqtt report on this logger what the bus reports in its own words.
_silent = logging.getLogger("resonator.bus.paho")
_silent.setLevel(logging.CRITICAL)


class ConnectionLost(Exception):
    """The connection is gone or was never made; `str()` is the reason in a few words."""


class _Inlet(asyncio.Queue[aiomqtt.Message]):
    """Hands each message on as it arrives.

    aiomqtt's own queue would lose what is in it when a connection ends, and its iterator starts a task for
    every message. This queue stays empty, so that iterating over it does one thing: wait for the end.
    """

    def __init__(self, sink: Sink, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self._sink = sink

    def put_nowait(self, item: aiomqtt.Message) -> None:
        """Pass `item` to the sink."""
        self._sink(Delivery(item.topic.value, bytes(item.payload), bool(item.retain)))


class _Client(aiomqtt.Client):
    """aiomqtt's client, with a way to free its socket when a goodbye is not possible."""

    def socket(self) -> socket.socket | None:
        """Return the connected socket."""
        return cast("socket.socket | None", self._client.socket())

    def abandon(self) -> None:
        """Close the socket, and stop watching it, whatever state the connection is in."""
        sock = self.socket()
        if sock is not None:
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())
            sock.close()
        if self._misc_task is not None:
            self._misc_task.cancel()


class Connection:
    """One MQTT 5 connection; `lost` is done once it has ended."""

    def __init__(self, address: BrokerAddress, client_id: str, keepalive_s: int, will: Will | None, sink: Sink):
        self._client = _Client(
            address.host,
            address.port,
            identifier=client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=True,
            keepalive=keepalive_s,
            timeout=ANSWER_TIMEOUT_S,
            will=None if will is None else aiomqtt.Will(will.topic, will.payload, will.qos, will.retain),
            # Unbounded: a bounded queue would drop what the broker already holds for delivered.
            queue_type=cast("type[asyncio.Queue[aiomqtt.Message]]", partial(_Inlet, sink)),
            properties=_connect_properties(),
            # Without it a round trip on loopback takes 88 ms instead of 0.4.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            logger=_silent,
        )
        self._client.pending_calls_threshold = 1 << 16
        self.lost: asyncio.Task[str] | None = None

    def socket(self) -> socket.socket | None:
        """Return the socket to the broker."""
        return self._client.socket()

    async def open(self) -> None:
        """Connect and wait for the broker's answer; raises ConnectionLost."""
        # connect() runs in a thread that cannot be stopped: see it through, then clean up after it.
        entering = asyncio.ensure_future(self._client.__aenter__())
        try:
            await asyncio.shield(entering)
        except aiomqtt.MqttError as error:
            self._client.abandon()
            raise ConnectionLost(_reason(error)) from None
        except asyncio.CancelledError:
            await asyncio.wait({entering})
            if not entering.cancelled():
                entering.exception()
            self._client.abandon()
            raise
        self.lost = asyncio.ensure_future(self._end())

    async def _end(self) -> str:
        """Wait for the end of the connection and return its reason."""
        try:
            await self._client.messages.__anext__()
        except aiomqtt.MqttError as error:
            return _reason(error.__cause__ if isinstance(error.__cause__, aiomqtt.MqttError) else error)
        raise AssertionError("the inlet never yields")

    async def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        """Publish, and with QoS 1 wait for the acknowledgement; raises ConnectionLost."""
        await self._unless_lost(self._client.publish(topic, payload, qos, retain, timeout=float("inf")))

    async def subscribe(self, filters: list[str]) -> list[str]:
        """Subscribe with QoS 1; returns the filters that the broker refused; raises ConnectionLost."""
        codes = await self._unless_lost(self._client.subscribe([(name, 1) for name in filters]))
        values = [getattr(code, "value", code) for code in codes]
        return [name for name, value in zip(filters, values, strict=False) if value >= 0x80]

    async def _unless_lost(self, call):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    async def close(self) -> None:
        """Say goodbye, or hang up where that is not possible."""


def _connect_properties() -> Properties:
    properties = Properties(PacketTypes.CONNECT)
    properties.MaximumPacketSize = MAX_PACKET_BYTES
    return properties


def _reason(error: BaseException) -> str:
    """Put a library's error in a few plain words: `[Errno 111] Connection refused` -> `connection refused`."""
    words = re.sub(r"^\[[^\]]*\]\s*", "", str(error)) or type(error).__name__
    return words[0].lower() + words[1:].rstrip(".")
