"""How a verb gets at the hub: settings, one client, one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from resonator import settings
from resonator.client import Client

T = TypeVar("T")


def open_client(broker: str | None, site: str | None) -> Client:
    """Make a client by the settings, those given first."""
    chosen = settings.load(broker=broker, site=site)
    return Client.connect(chosen.broker, chosen.site, timeout=chosen.timeout)


def with_client(broker: str | None, site: str | None, use: Callable[[Client], Awaitable[T]]) -> T:
    """Connect, have `use` do its work, and say goodbye."""

    async def session() -> T:
        async with open_client(broker, site) as client:
            return await use(client)

    return asyncio.run(session())
