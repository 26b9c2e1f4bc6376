"""The public status of jobs: retained on the bus at each change, at most a few times a second, the less the
more jobs there are: what people look at must not keep boxes waiting.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from resonator.bus import topics
from resonator.bus.peer import Peer
from resonator.errors import BusUnreachable
from resonator.ids import JobId
from resonator.messages import JobStatus
from resonator_hub.tasks import Tasks, happens

log = structlog.get_logger(__name__)
INTERVAL_S = 0.2
MOST_A_SECOND = 20
"""How many statuses of all jobs are published in a second, but for first and last ones."""
LATELY = 20
"""Of how many jobs that ended last it is said again at every connection that they did."""


class Board:
    """Publishes what `status` says of each job that changed; a job's last status is always published.

    `owner` gives site and name of the client who submitted a job: at that site its status is. Where the fleet
    has certificates, submitters do not see that of others' jobs, so theirs is sent to each of them as well.
    """

    def __init__(
        self,
        peer: Peer,
        status: Callable[[JobId], JobStatus],
        owner: Callable[[JobId], tuple[str, str]],
        *,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._peer = peer
        self._status = status
        self._owner = owner
        self._interval_s = interval_s
        self._changed: set[JobId] = set()
        self._ended: deque[JobId] = deque(maxlen=LATELY)
        self._tasks = Tasks()
        self._closing = asyncio.Event()

    def report(self, job: JobId, *, ended: bool = False) -> None:
        """Publish a job's status soon, or at once when it has ended."""
        self._changed.add(job)
        if ended or job not in self._tasks:
            self._tasks.start(job, self._publish(job))

    def ended(self, job: JobId) -> None:
        """Remember that a job has ended, in this life or in an earlier one, whose word may have been lost."""
        self._ended.append(job)

    def say_again(self) -> None:
        """Publish the last statuses again: of a job that goes on there will be others."""
        for job in self._ended:
            self.report(job, ended=True)

    def pause_s(self, jobs: int) -> float:
        """Return how long a job's next status waits, where so many jobs change."""
        return max(self._interval_s, jobs / MOST_A_SECOND)

    async def close(self, timeout_s: float) -> None:
        """Publish what is still due, for at most `timeout_s` seconds, and stop."""
        self._closing.set()
        await self._tasks.finish(timeout_s)

    async def _publish(self, job: JobId) -> None:
        site, client = self._owner(job)
        while job in self._changed:
            self._changed.discard(job)
            try:
                status = self._status(job)
                await self._peer.send(topics.job_status(site, job), status, retain=True)
                if self._peer.is_sealed:
                    await self._peer.send(topics.client_dn(site, client), status)
            except BusUnreachable as error:
                log.warning("status not published yet", job=job, reason=str(error))
                self._changed.add(job)
            await happens(self._closing, self.pause_s(len(self._tasks)))
