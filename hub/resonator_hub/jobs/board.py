"""The public status of jobs: retained on the bus at each change, at most a few times a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from resonator.bus import topics
from resonator.bus.peer import Peer
from resonator.errors import BusUnreachable
from resonator.ids import JobId
from resonator.messages import JobStatus
from resonator_hub.tasks import Tasks

log = structlog.get_logger(__name__)
INTERVAL_S = 0.2


class Board:
    """Publishes what `status` says of each job that changed; a job's last status is always published.

    `site` gives the site of the client who submitted a job: that is where its status is.
    """

    def __init__(
        self,
        peer: Peer,
        status: Callable[[JobId], JobStatus],
        site: Callable[[JobId], str],
        *,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._peer = peer
        self._status = status
        self._site = site
        self._interval_s = interval_s
        self._changed: set[JobId] = set()
        self._tasks = Tasks()

    def report(self, job: JobId) -> None:
        """Publish a job's status soon."""
        self._changed.add(job)
        if job not in self._tasks:
            self._tasks.start(job, self._publish(job))

    async def close(self, timeout_s: float) -> None:
        """Publish what is still due, for at most `timeout_s` seconds, and stop."""
        await self._tasks.finish(timeout_s)

    async def _publish(self, job: JobId) -> None:
        topic = topics.job_status(self._site(job), job)
        while job in self._changed:
            self._changed.discard(job)
            try:
                await self._peer.send(topic, self._status(job), retain=True)
            except BusUnreachable as error:
                log.warning("status not published yet", job=job, reason=str(error))
                self._changed.add(job)
            await asyncio.sleep(self._interval_s)
