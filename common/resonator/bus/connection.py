"""One connection to the broker, from CONNECT to its end: aiomqtt with its sharp edges taken off."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar, cast

import aiomqtt
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from resonator.bus.port import MAX_PACKET_BYTES, Delivery, Will
from resonator.bus.reading import Reading
from resonator.bus.url import BrokerAddress

_log = structlog.get_logger(__name__)

T = TypeVar("T")
Sink = Callable[[Delivery], None]

ANSWER_TIMEOUT_S = 10.0
"""How long CONNECT, SUBSCRIBE and DISCONNECT may go unanswered."""

UNDER_WAY = 1000
"""How many messages may wait for their acknowledgement at once.

With paho's 20 a party 50 ms away from its broker could not say more than 400 things a second.
"""

_HUNG_UP = "it hung up before it answered"
_UNKNOWN = f"{_HUNG_UP}: this identity is not known there, or not valid"

# paho and aiomqtt report on this logger what the bus reports in its own words.
_silent = logging.getLogger("resonator.bus.paho")
_silent.setLevel(logging.CRITICAL)


class ConnectionLost(Exception):
    """The connection is gone or was never made; `str()` is the reason in a few words."""


class _Client(aiomqtt.Client):
    """aiomqtt's client, with a reading of its own, and a way to free its socket where no goodbye is possible.

    Messages go to `sink`, not into aiomqtt's queue, which would lose what is in it when a connection ends.
    """

    def __init__(self, sink: Sink, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._reading = Reading(self._client, sink)
        self.dialled = asyncio.Event()
        self._over_tls = options.get("tls_context") is not None

    def _on_socket_open(self, client: Any, userdata: Any, sock: Any) -> None:
        """Read in place of aiomqtt, which has asked the loop for it just before."""
        super()._on_socket_open(client, userdata, sock)
        self._loop.call_soon_threadsafe(self._loop.add_reader, sock.fileno(), self._reading)

    def _on_connect(
        self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None
    ) -> None:
        """Note what the broker is willing to take at once: paho does not, and would be thrown out."""
        willing = getattr(properties, "ReceiveMaximum", UNDER_WAY)
        # The setter refuses once there is a connection; nothing has been published on this one yet.
        self._client._max_inflight_messages = min(UNDER_WAY, willing)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None
    ) -> None:
        """Give up when the broker hangs up before it has answered: aiomqtt would wait for its timeout."""
        if not self._connected.done():
            self._connected.set_exception(aiomqtt.MqttError(_UNKNOWN if self._over_tls else _HUNG_UP))
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _client_connect(self) -> None:
        """Connect, in a thread, and tell the event loop when the thread is through."""
        try:
            super()._client_connect()
        finally:
            self._loop.call_soon_threadsafe(self.dialled.set)

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
    """One MQTT 5 connection; `ended()` returns when it is over."""

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        keepalive_s: int,
        will: Will | None,
        sink: Sink,
        tls: ssl.SSLContext | None = None,
    ):
        self._client = _Client(
            sink,
            address.host,
            address.port,
            identifier=client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=True,
            keepalive=keepalive_s,
            timeout=ANSWER_TIMEOUT_S,
            max_inflight_messages=UNDER_WAY,
            will=None if will is None else aiomqtt.Will(will.topic, will.payload, will.qos, will.retain),
            properties=_connect_properties(),
            tls_context=tls,
            # Without it a round trip on loopback takes 88 ms instead of 0.4.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            logger=_silent,
        )
        self._client.pending_calls_threshold = 1 << 16
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._watch: asyncio.Task[None] | None = None

    def socket(self) -> socket.socket | None:
        """Return the socket to the broker."""
        return self._client.socket()

    async def open(self) -> None:
        """Connect and wait for the broker's answer; raises ConnectionLost."""
        entering = asyncio.ensure_future(self._client.__aenter__())
        try:
            await asyncio.shield(entering)
        except aiomqtt.MqttError as error:
            self._client.abandon()
            raise ConnectionLost(_reason(error)) from None
        except asyncio.CancelledError:
            await self._give_up(entering)
            raise
        self._watch = asyncio.ensure_future(self._await_end())

    async def _give_up(self, entering: asyncio.Future[Any]) -> None:
        """Clean up after an attempt to connect that is not wanted any more."""
        # Its thread cannot be stopped and leaves watchers of its socket in the loop: see it through first.
        await self._client.dialled.wait()
        entering.cancel()
        await asyncio.wait({entering})
        if not entering.cancelled():
            entering.exception()  # seen, and of no interest
        self._client.abandon()

    async def _await_end(self) -> None:
        try:
            await self._client.messages.__anext__()
        except aiomqtt.MqttError as error:
            self._end(_reason(error.__cause__ or error))

    def _end(self, reason: str) -> None:
        if not self._lost.done():
            self._lost.set_result(reason)

    async def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        """Publish, and with QoS 1 wait for the acknowledgement; raises ConnectionLost."""
        await self._unless_lost(self._client.publish(topic, payload, qos, retain, timeout=math.inf))

    async def subscribe(self, filters: Iterable[str]) -> list[str]:
        """Subscribe with QoS 1; returns the filters that the broker refused; raises ConnectionLost."""
        wanted = [(name, SubscribeOptions(qos=1)) for name in filters]
        codes = await self._unless_lost(self._client.subscribe(wanted))
        values = [code if isinstance(code, int) else code.value for code in codes]
        return [name for (name, _), value in zip(wanted, values, strict=True) if value >= 0x80]

    async def ended(self) -> str:
        """Wait until the connection has ended, and return the reason."""
        return await asyncio.shield(self._lost)

    def leave(self, reason: str) -> None:
        """End the connection from this side."""
        self._end(reason)

    async def _unless_lost(self, call: Coroutine[Any, Any, T]) -> T:
        """Await `call`, but no longer than the connection lives: aiomqtt would wait for its timeout."""
        task = asyncio.ensure_future(call)
        try:
            await asyncio.wait((task, self._lost), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        except aiomqtt.MqttError as error:
            self._end(_reason(error))
        finally:
            task.cancel()
        raise ConnectionLost(self._lost.result())

    async def close(self) -> None:
        """Say goodbye, or hang up where that is not possible."""
        if self._watch is not None:
            self._watch.cancel()
        try:
            await self._client.__aexit__(None, None, None)
        except aiomqtt.MqttError:
            _log.info("the broker did not answer the goodbye")
        finally:
            self._client.abandon()


def _connect_properties() -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = MAX_PACKET_BYTES
    return properties


def _reason(error: BaseException) -> str:
    """Put a library's error in plain words: `[Errno 111] Connection refused` -> `connection refused`."""
    words = re.sub(r"^\[[^\]]*\]\s*", "", str(error)) or type(error).__name__
    return words[0].lower() + words[1:].rstrip(".")
