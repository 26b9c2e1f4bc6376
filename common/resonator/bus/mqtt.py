"""The Bus over MQTT 5, on aiomqtt: connects for ever, resubscribes, and sends again what was cut off."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import AsyncIterator
from types import TracebackType

import structlog
from typing_extensions import Self

from resonator.bus.backoff import Backoff
from resonator.bus.connection import Connection, ConnectionLost
from resonator.bus.gate import Gate, sender
from resonator.bus.port import (
    ENVELOPE_BYTES,
    MAX_PACKET_BYTES,
    BusDisconnected,
    ConnectHook,
    Delivery,
    PayloadTooLarge,
    WillSource,
)
from resonator.bus.turns import Turns
from resonator.bus.url import parse_broker_url
from resonator.errors import InputInvalid, Refused, ResonatorError

_log = structlog.get_logger(__name__)

MOST_WAITING = 5000
"""How many messages of one sender may wait to be read; what comes from above is awaited, and all kept."""


class MqttBus:
    """A client of the broker at `url`; see `resonator.bus.port.Bus` for what it promises.

    `publish_timeout_s` bounds how long `publish()` waits for a connection and an acknowledgement together,
    `keepalive_s` how long a dead peer goes unnoticed (up to twice that). The client id stays the same over
    reconnects, so that a new connection takes the place of a half-dead one, whose will is published then.
    `tls` says how to prove who this is and whom to trust, at a broker of `mqtts://`. Raises InputInvalid for
    a URL that names no broker, or one that asks for a `tls` that is not given.
    """

    def __init__(
        self,
        url: str,
        *,
        client_id: str | None = None,
        will: WillSource = None,
        tls: ssl.SSLContext | None = None,
        keepalive_s: int = 15,
        publish_timeout_s: float = 30.0,
        backoff: Backoff | None = None,
    ) -> None:
        self._address = parse_broker_url(url)
        if self._address.tls and tls is None:
            raise InputInvalid(f"broker {url} asks who this is: give an identity with --identity DIR")
        self._tls = tls if self._address.tls else None
        self.client_id = client_id or f"resonator-{secrets.token_hex(8)}"
        self._will = will
        self._keepalive_s = keepalive_s
        self._publish_timeout_s = publish_timeout_s
        self._backoff = backoff or Backoff()
        self._filters: dict[str, None] = {}  # an ordered set
        self._hooks: list[ConnectHook] = []
        self._hook_tasks: set[asyncio.Task[None]] = set()
        self.gate = Gate()
        self._inbox: Turns[Delivery] = Turns()
        self._connection: Connection | None = None
        self._up = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this client and holds its subscriptions right now."""
        return self._up.is_set()

    async def start(self) -> None:
        """Begin to connect; does not wait for the broker."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._stay_connected(), name=f"bus {self._address}")
            self._keeper.add_done_callback(lambda _: self._inbox.close())

    async def close(self) -> None:
        """Say goodbye (no will is published), end `deliveries()`, and free the socket."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def reconnect(self, reason: str) -> None:
        """Say goodbye and connect again, with the will and the credentials that are right by now."""
        if self._connection is not None:
            self._connection.leave(reason)

    async def wait_connected(self, timeout_s: float | None = None) -> None:
        """Wait for a connection, at most `timeout_s` seconds; raises BusDisconnected after that."""
        try:
            await asyncio.wait_for(self._up.wait(), timeout_s)
        except asyncio.TimeoutError:
            raise BusDisconnected(f"broker {self._address} did not answer within {timeout_s:g} s") from None

    def on_connect(self, hook: ConnectHook) -> None:
        """Run `hook` after each connect and reconnect, subscriptions already in place: announce presence."""
        self._hooks.append(hook)

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """Yield what arrives, in order for each sender below, until the bus is closed; for one reader."""
        while (delivery := await self._inbox.take()) is not None:
            yield delivery
        if self._keeper is not None and not self._keeper.cancelled():
            self._keeper.result()  # it never ends by itself: raise what broke it

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Hand `payload` to the broker: with QoS 1, return when the broker has acknowledged it.

        While there is no connection this waits for one, and what a broken connection swallowed is sent
        again. Raises BusDisconnected when the publish timeout has passed, PayloadTooLarge at once.
        """
        size = len(payload) + len(topic.encode()) + ENVELOPE_BYTES
        if size > MAX_PACKET_BYTES:
            raise PayloadTooLarge(
                f"a message of {len(payload)} bytes to {topic} does not fit into {MAX_PACKET_BYTES}"
            )
        try:
            await asyncio.wait_for(self._publish(topic, payload, qos, retain), self._publish_timeout_s)
        except asyncio.TimeoutError:
            raise BusDisconnected(
                f"broker {self._address} did not acknowledge a message to {topic} "
                f"within {self._publish_timeout_s:g} s"
            ) from None

    async def _publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        """Publish on this connection, or on the next one, until it is done."""
        while True:
            await self._up.wait()
            connection = self._connection
            assert connection is not None, "up means connected"
            try:
                return await connection.publish(topic, payload, qos, retain)
            except ConnectionLost:
                self._leave(connection)

    async def subscribe(self, *filters: str) -> None:
        """Ask for the topics that match `filters`, now and after every reconnect, with QoS 1.

        Without a connection this only notes the filters; they are in place before `connected` turns true
        and before any `on_connect` hook runs. Raises Refused when the broker refuses a filter.
        """
        self._filters.update(dict.fromkeys(filters))
        connection = self._connection
        if connection is None or not filters:
            return
        # A connection that breaks here is followed by one that subscribes to everything.
        with contextlib.suppress(ConnectionLost):
            if refused := await connection.subscribe(filters):
                for name in refused:
                    del self._filters[name]
                raise Refused(f"broker {self._address} refuses a subscription to {', '.join(refused)}")

    async def _stay_connected(self) -> None:
        """Connect, stay until the connection ends, wait a little, and again."""
        while True:
            try:
                reason = await self._connect_once()
                what = "is lost"
            except ConnectionLost as error:
                reason, what = str(error), "is not there"
            wait_s = self._backoff.next()
            _log.warning(f"broker {self._address} {what} ({reason}); trying again in {wait_s:.1f} s")
            await asyncio.sleep(wait_s)

    async def _connect_once(self) -> str:
        """Live through one connection and return why it ended; raises ConnectionLost if there was none."""
        will = self._will() if callable(self._will) else self._will
        connection = Connection(self._address, self.client_id, self._keepalive_s, will, self._take, self._tls)
        await connection.open()
        try:
            # From here on subscribe() asks this connection itself, so that no filter falls between.
            self._connection = connection
            await self._resubscribe(connection)
            self._backoff.reset()
            self._up.set()
            _log.info(f"connected to broker {self._address}", client_id=self.client_id)
            self._run_hooks()
            return await connection.ended()
        finally:
            self._leave(connection)
            await connection.close()

    def _take(self, delivery: Delivery) -> None:
        """Queue what has arrived, unless its sender has said too much; what comes from above has one turn."""
        topic = delivery.topic
        if not self.gate.admits(topic):
            return
        whose = sender(topic) if "/up/" in topic else ""
        if whose and self._inbox.waiting(whose) >= MOST_WAITING:
            self.gate.refuse("flood", topic, f"{MOST_WAITING} messages of its sender wait already")
        else:
            self._inbox.put(whose, delivery)

    def _leave(self, connection: Connection) -> None:
        """Nothing more is sent on `connection`."""
        if self._connection is connection:
            self._connection = None
            self._up.clear()
            for task in self._hook_tasks:
                task.cancel()  # the next connection runs them afresh

    async def _resubscribe(self, connection: Connection) -> None:
        if not self._filters:
            return
        for name in await connection.subscribe(self._filters):
            _log.error(f"broker {self._address} refuses a subscription to {name}")

    def _run_hooks(self) -> None:
        for hook in self._hooks:
            task = asyncio.create_task(self._run_hook(hook))
            self._hook_tasks.add(task)
            task.add_done_callback(self._hook_tasks.discard)

    async def _run_hook(self, hook: ConnectHook) -> None:
        try:
            await hook()
        except ResonatorError as error:
            _log.warning(f"after connecting to broker {self._address}: {error}")
