"""Takes a snapshot of what the hub knows now and then, and has the journal forget what nobody needs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator

import structlog

from resonator.errors import ResonatorError
from resonator_hub.journal import Journal
from resonator_hub.scheduler import Scheduler
from resonator_hub.scheduler.commands import Profile
from resonator_hub.snapshots import DAY_S, Moment, Snapshots

log = structlog.get_logger(__name__)
EVERY = 20_000
"""Events from one snapshot to the next: what a start after kill -9 has to fold at the most."""
WORTHWHILE = 1_000
"""Events for which a snapshot is taken when the hub stops, or after it had to fold them."""
KEEP_S = 30 * DAY_S
"""For how long every event is kept, in seconds, so that jobs can be told of and replayed."""
_BATCH = 500
"""Events that are forgotten at once, and"""
_PAUSE_S = 0.05
"""after how many seconds the next: nobody is to wait for this."""


class Keeper:
    """Keeps what a scheduler knows, and the pushes whose results are `asked` for.

    The journal's events are kept for `keep_s` seconds at the least.
    """

    def __init__(
        self,
        journal: Journal,
        snapshots: Snapshots,
        scheduler: Scheduler,
        asked: Callable[[], Iterable[Profile]],
        *,
        every: int = EVERY,
        keep_s: float = KEEP_S,
    ) -> None:
        self._journal = journal
        self._snapshots = snapshots
        self._scheduler = scheduler
        self._asked = asked
        self._every = every
        self._keep_s = keep_s
        self._events = self._seq = 0
        self._at = 0.0
        self._sound = True
        self._taken = asyncio.Event()
        self._taken.set()  # what an earlier life did not come to forget

    def restore(self) -> Moment:
        """Put the scheduler where the latest snapshot was taken; raises JournalUnreadable."""
        return self._snapshots.latest(self._scheduler)

    def count(self, events: int, seq: int, at: float) -> None:
        """So many more events were taken, the last one with this number and at this time."""
        self._events, self._seq, self._at = self._events + events, seq, at
        if self._events >= self._every:
            self._take()

    def settle(self) -> None:
        """The hub has just started, or is about to stop: a good time for a snapshot, if it is worthwhile."""
        if self._events >= min(WORTHWHILE, self._every):
            self._take()

    def distrust(self) -> None:
        """Something was not done that only a fold will make up for: take no snapshot any more."""
        self._sound = False

    def _take(self) -> None:
        """Take a snapshot; one that fails is no reason to end, and is tried again as many events later."""
        if not self._sound:
            return
        events, self._events = self._events, 0
        began = time.perf_counter()
        try:
            self._snapshots.keep(Moment(self._seq, self._at, tuple(self._asked())), self._scheduler)
        except ResonatorError as error:
            log.warning("no snapshot could be taken", reason=str(error))
            return
        except Exception:
            log.exception("no snapshot could be taken")
            return
        log.info("snapshot taken", events=events, took_s=round(time.perf_counter() - began, 3))
        self._taken.set()

    async def run(self) -> None:
        """Forget what need not be kept, after each snapshot, until cancelled."""
        while True:
            await self._taken.wait()
            self._taken.clear()
            forgotten = 0
            for count in self.forget():
                forgotten += count
                await asyncio.sleep(_PAUSE_S)
            if forgotten:
                log.info("events forgotten", events=forgotten)

    def forget(self) -> Iterator[int]:
        """Forget what need not be kept, and yield after each step how many events that was."""
        first = self._snapshots.begin(self._journal.last_at() - self._keep_s)
        last = 0
        while gone := self._journal.forget(last, first, _BATCH):
            last = gone[-1]
            yield len(gone)
