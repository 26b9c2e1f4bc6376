"""How a verb gets at the hub: settings, one client, one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from resonator import settings
from resonator.client import Client

T = TypeVar("T")


def open_client(broker: str | None, site: str | None, identity: Path | None) -> Client:
    """Make a client by the settings, those given first."""
    chosen = settings.load(broker=broker, site=site, identity=identity)
    return Client.connect(
        chosen.broker,
        chosen.site,
        timeout=chosen.timeout,
        identity=chosen.identity,
        insecure=chosen.insecure,
    )


def with_client(
    broker: str | None, site: str | None, identity: Path | None, use: Callable[[Client], Awaitable[T]]
) -> T:
    """Connect, have `use` do its work, and say goodbye."""

    async def session() -> T:
        async with open_client(broker, site, identity) as client:
            return await use(client)

    return asyncio.run(session())
