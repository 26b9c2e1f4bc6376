"""A bus in memory: every client of one `MemoryBroker` hears what the others publish, at once and in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TypeVar

from typing_extensions import Self

from resonator.bus import codec
from resonator.bus.gate import Gate
from resonator.bus.port import ConnectHook, Delivery
from resonator.messages import Message
from resonator_hub.broker.filters import matches

T = TypeVar("T")


class MemoryBroker:
    """Routes, retains, and remembers everything that was published."""

    def __init__(self) -> None:
        self.clients: list[MemoryBus] = []
        self.retained: dict[str, bytes] = {}
        self.published: list[tuple[str, codec.Decoded]] = []
        self._changed = asyncio.Event()

    def client(self) -> MemoryBus:
        bus = MemoryBus(self)
        self.clients.append(bus)
        return bus

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        if retain:
            self.retained[topic] = payload
        for client in self.clients:
            client.offer(Delivery(topic, payload, retained=False))

    def note(self, topic: str, payload: bytes) -> None:
        self.published.append((topic, codec.decode(payload)))
        self._changed.set()

    def sent(self, kind: type[Message]) -> list[codec.Decoded]:
        """What was published of one kind of message, oldest first."""
        return [decoded for _, decoded in self.published if isinstance(decoded.message, kind)]

    async def wait_for(self, kind: type[Message], count: int = 1) -> codec.Decoded:
        """Wait until `count` messages of a kind were published; return the last of them."""
        return await self._until(lambda: self.sent(kind)[count - 1 : count])

    async def answer_to(self, message_id: str) -> tuple[str, Message]:
        """Wait for the answer to a message; return its topic and what it says."""

        def found() -> list[tuple[str, Message]]:
            return [(topic, d.message) for topic, d in self.published if d.corr == message_id]

        return await self._until(found)

    async def _until(self, found: Callable[[], list[T]]) -> T:
        async def come() -> T:
            while not (those := found()):
                self._changed.clear()
                await self._changed.wait()
            return those[0]

        return await asyncio.wait_for(come(), 20.0)


class MemoryBus:
    """One client; see `resonator.bus.port.Bus`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._filters: list[str] = []
        self._hooks: list[ConnectHook] = []
        self._inbox: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self._hearing = 0
        self.gate = Gate()

    @property
    def connected(self) -> bool:
        return True

    async def start(self) -> None:
        for hook in self._hooks:
            await hook()

    async def close(self) -> None:
        self._inbox.put_nowait(None)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def wait_connected(self, timeout_s: float | None = None) -> None:
        return

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        self._broker.note(topic, payload)
        self._broker.publish(topic, payload, retain=retain)

    async def subscribe(self, *filters: str) -> None:
        self._filters += filters
        for topic, payload in self._broker.retained.items():
            self.offer(Delivery(topic, payload, retained=True))

    async def deliveries(self) -> AsyncIterator[Delivery]:
        while (delivery := await self._inbox.get()) is not None:
            yield delivery
            self._inbox.task_done()

    def on_connect(self, hook: ConnectHook) -> None:
        self._hooks.append(hook)

    def offer(self, delivery: Delivery) -> None:
        if any(matches(name, delivery.topic) for name in self._filters):
            self._inbox.put_nowait(delivery)

    async def heard_all(self) -> None:
        """Wait until everything that came in was handled."""
        await asyncio.wait_for(self._inbox.join(), 10.0)
