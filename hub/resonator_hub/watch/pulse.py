"""How late the event loop is: whatever blocks it delays every device and every client."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, Histogram

from resonator_hub.watch.counts import FAST

EVERY_S = 0.25


class Pulse:
    """Sleeps a little, and notes how much longer that took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lag = Histogram(
            "resonator_event_loop_lag_seconds",
            "How much later than asked the event loop wakes.",
            buckets=FAST,
            registry=registry,
        )

    async def run(self) -> None:
        """Measure for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + EVERY_S
            await asyncio.sleep(EVERY_S)
            self._lag.observe(max(0.0, loop.time() - due))
