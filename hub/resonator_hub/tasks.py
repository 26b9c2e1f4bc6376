"""Background work of the hub: held on to while it runs, logged when it fails, ended with its owner."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Hashable

import structlog

log = structlog.get_logger(__name__)


async def happens(event: asyncio.Event, within_s: float) -> bool:
    """Wait for an event; return whether it came within that many seconds."""
    try:
        await asyncio.wait_for(event.wait(), within_s)
    except asyncio.TimeoutError:
        return False
    return True


class Tasks:
    """Asyncio tasks by a key; a new one under a key ends the one before it."""

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[None]] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._running

    def __len__(self) -> int:
        return len(self._running)

    def start(self, key: Hashable, work: Coroutine[None, None, None]) -> None:
        """Run `work` until it ends or `stop(key)`."""
        self.stop(key)
        task = asyncio.ensure_future(work)
        self._running[key] = task
        task.add_done_callback(lambda done: self._ended(key, done))

    def stop(self, key: Hashable) -> None:
        """End the work under a key, if there is any; work that stops itself runs to its end."""
        task = self._running.pop(key, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def finish(self, timeout_s: float) -> None:
        """Let all work come to its end for `timeout_s` seconds, then end it."""
        if self._running:
            await asyncio.wait(list(self._running.values()), timeout=timeout_s)
        await self.close()

    async def close(self) -> None:
        """End all work, and wait until it has."""
        running = set(self._running.values())
        while running:
            for task in running:
                task.cancel()  # once may not do: a wait with a timeout can swallow it
            _, running = await asyncio.wait(running, timeout=1.0)

    def _ended(self, key: Hashable, task: asyncio.Task[None]) -> None:
        if self._running.get(key) is task:
            del self._running[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background work failed", work=key, exc_info=error)
