"""Where everything that happens to the hub comes in, to be journalled one after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from resonator_hub.database import Write
from resonator_hub.scheduler.events import Event


class Clock:
    """The wall clock in seconds since the epoch, that never goes back, not even over a restart.

    Where the wall clock is behind, time goes on from where it was: what waits for it must not wait for ever.
    """

    def __init__(
        self,
        *,
        not_before: float = 0.0,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._latest = not_before
        self._wall = wall
        self._steady = steady
        self._asked_at = steady()

    def now(self) -> float:
        """Return the time; never less than an earlier answer."""
        asked_at = self._steady()
        self._latest = max(self._latest + asked_at - self._asked_at, self._wall())
        self._asked_at = asked_at
        return self._latest


@dataclass(frozen=True)
class Posted:
    """An event on its way, what is written together with it, and who waits until it is taken."""

    event: Event
    also: Write | None
    taken: asyncio.Future[None]


class Inbox:
    """A queue of events; `now` is the time that belongs into them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queue: asyncio.Queue[Posted] = asyncio.Queue()

    def now(self) -> float:
        """Return the hub's time, in seconds since the epoch."""
        return self._clock.now()

    def post(self, event: Event, also: Write | None = None) -> asyncio.Future[None]:
        """Queue an event; the future ends when it is journalled, with what `also` writes, and stepped."""
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(Posted(event, also, taken))
        return taken

    async def next(self) -> list[Posted]:
        """Wait for the next event; return it and all that are queued behind it."""
        posted = [await self._queue.get()]
        while not self._queue.empty():
            posted.append(self._queue.get_nowait())
        return posted

    def length(self) -> int:
        """Return how many events are queued."""
        return self._queue.qsize()

    def waiting(self) -> bool:
        """Whether events are queued."""
        return not self._queue.empty()
