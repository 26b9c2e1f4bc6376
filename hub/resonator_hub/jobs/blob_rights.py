"""Who may have which blob, and who fetched what: once for each fetch, not for each of its pieces."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from resonator.bus.blobs import Blobs
from resonator.bus.peer import Received
from resonator.ids import DeviceId, JobId
from resonator_hub.door import device_of
from resonator_hub.inbox import Inbox
from resonator_hub.jobs.rights import reach, reaches, who
from resonator_hub.jobs.store import Jobs
from resonator_hub.scheduler.events import BlobFetched

OVER_S = 600.0
"""A fetch of which nothing was heard for so long is over; the same asked for again is another one."""
REMEMBERED = 10_000


class BlobRights:
    """A device gets what was `pushed` to it, a user the models and bundles of jobs within his reach.

    `bundle_of` returns the jobs that have delivered a bundle, by its digest.
    """

    def __init__(
        self,
        inbox: Inbox,
        blobs: Blobs,
        jobs: Jobs,
        pushed: Callable[[DeviceId, str], bool],
        bundle_of: Callable[[str], tuple[JobId, ...]],
    ) -> None:
        self._inbox = inbox
        self._blobs = blobs
        self._jobs = jobs
        self._pushed = pushed
        self._bundle_of = bundle_of
        self._under_way: OrderedDict[tuple[str, str], float] = OrderedDict()

    def allow(self, received: Received, digest: str) -> bool:
        """Return whether whoever asks may have a blob, and journal that a user begins to fetch it."""
        if received.address.kind == "dev":
            return self._pushed(device_of(received), digest)
        key, now = (who(received).by, digest), self._inbox.now()
        last = self._under_way.get(key)
        if (last is None or now - last > OVER_S) and not self._begin(received, digest, now):
            return False
        self._under_way[key] = now
        self._under_way.move_to_end(key)
        if len(self._under_way) > REMEMBERED:
            self._under_way.popitem(last=False)
        return True

    def _begin(self, received: Received, digest: str, now: float) -> bool:
        if not self._blobs.has(digest):
            return False
        jobs = map(self._jobs.find, (*self._bundle_of(digest), *self._jobs.with_model(digest)))
        reached = [one.job for one in jobs if one is not None and reaches(received, one.site, one.client)]
        if not reached and reach(received) != "all":
            return False
        job = reached[0] if reached else JobId("")
        self._inbox.post(BlobFetched(now, digest, job, *who(received)))
        return True
