"""The Bus: what the hub, the agents and the clients see of the message broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from typing_extensions import Self

from resonator.bus.gate import Gate
from resonator.errors import BusUnreachable, ResonatorError

MAX_PACKET_BYTES = 8 * 1024 * 1024
"""The largest MQTT packet, topic and headers included, that either end accepts."""

ENVELOPE_BYTES = 64
"""What a publish packet needs beside its topic and payload; a generous bound."""


class BusDisconnected(BusUnreachable):
    """The broker did not acknowledge in time; what was sent may or may not have arrived."""


class PayloadTooLarge(ResonatorError):
    """A payload does not fit into one packet; blobs travel in chunks instead."""


@dataclass(frozen=True)
class Delivery:
    """One message from the broker; `retained` says that it was kept from before the subscription."""

    topic: str
    payload: bytes
    retained: bool


@dataclass(frozen=True)
class Will:
    """What the broker publishes when this client is gone without a goodbye."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


WillFactory = Callable[[], Will]
"""Asked once for each connection, so that a will can carry the number of that very session."""

WillSource = Will | WillFactory | None
ConnectHook = Callable[[], Awaitable[None]]


class Bus(Protocol):
    """A client of one broker that stays connected, for ever, until it is closed.

    `start()` returns at once; the connection is made, and made again, behind the scenes. Delivery is at
    least once: whoever reads deduplicates, and whoever needs an answer asks again with the same id.
    """

    @property
    def gate(self) -> Gate:
        """What is let in from whom, and what was refused: whoever reads tells it of what is bad."""

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this client and holds its subscriptions right now."""

    async def start(self) -> None:
        """Begin to connect; does not wait for the broker."""

    async def close(self) -> None:
        """Say goodbye (no will is published), end `deliveries()`, and free the socket."""

    async def __aenter__(self) -> Self:
        """Start."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""

    async def wait_connected(self, timeout_s: float | None = None) -> None:
        """Wait for a connection, at most `timeout_s` seconds; raises BusDisconnected after that."""

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Hand `payload` to the broker: with QoS 1, return when the broker has acknowledged it.

        While there is no connection this waits for one, and what a broken connection swallowed is sent
        again. Raises BusDisconnected when the bus's publish timeout has passed, PayloadTooLarge at once.
        """

    async def subscribe(self, *filters: str) -> None:
        """Ask for the topics that match `filters`, now and after every reconnect, with QoS 1.

        Without a connection this only notes the filters; they are in place before `connected` turns true
        and before any `on_connect` hook runs. Raises Refused when the broker refuses a filter.
        """

    def deliveries(self) -> AsyncIterator[Delivery]:
        """Yield what arrives, in order, until the bus is closed; for one reader."""

    def on_connect(self, hook: ConnectHook) -> None:
        """Run `hook` after each connect and reconnect, subscriptions already in place: announce presence."""
