"""Somebody at a broker who says and hears bytes, whatever they mean."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

from resonator.bus.connection import Connection
from resonator.bus.port import Delivery
from resonator.bus.url import parse_broker_url

PATIENCE_S = 10.0


class Somebody:
    """One connection, and what it hears."""

    def __init__(self, url: str, tls: ssl.SSLContext, name: str) -> None:
        self.heard: list[Delivery] = []
        self._news = asyncio.Event()
        self.connection = Connection(parse_broker_url(url), name, 15, None, self._hear, tls)

    def _hear(self, delivery: Delivery) -> None:
        self.heard.append(delivery)
        self._news.set()

    async def hears(self, payload: bytes) -> None:
        """Wait until this has been said to him."""
        while payload not in [one.payload for one in self.heard]:
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), PATIENCE_S)


@contextlib.asynccontextmanager
async def connected(url: str, tls: ssl.SSLContext, name: str) -> AsyncIterator[Somebody]:
    """Somebody at a broker; raises ConnectionLost where he is not let in."""
    somebody = Somebody(url, tls, name)
    await asyncio.wait_for(somebody.connection.open(), PATIENCE_S)
    try:
        yield somebody
    finally:
        await somebody.connection.close()


async def say(somebody: Somebody, topic: str, payload: bytes, *, retain: bool = False) -> None:
    """Have somebody publish something."""
    await somebody.connection.publish(topic, payload, 1, retain)
