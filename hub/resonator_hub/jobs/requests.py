"""What clients ask: each request is checked, done once, and answered on the client's own topic."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import structlog

from resonator.bus import topics
from resonator.bus.peer import Peer, Received
from resonator.failures import Failure, FailureKind
from resonator.ids import DeviceId, JobId
from resonator.messages import (
    MAX_MESSAGE,
    DeviceDrain,
    DeviceList,
    DeviceQuery,
    DeviceReport,
    DeviceUndrain,
    Drain,
    JobCancel,
    JobList,
    JobQuery,
    JobStatus,
    Message,
    Rejected,
    SiteList,
    SiteQuery,
)
from resonator_hub.door import admit, staleness
from resonator_hub.fleet import Registry
from resonator_hub.inbox import Inbox
from resonator_hub.jobs.rights import RIGHTS, forbidden, reach, reaches, who
from resonator_hub.jobs.store import Jobs
from resonator_hub.scheduler import Scheduler
from resonator_hub.scheduler.events import DeviceDrained, DeviceUndrained, JobCanceled

log = structlog.get_logger(__name__)
MOST_BYTES = MAX_MESSAGE * 3 // 4
"""How long a list of devices may be, spelled as JSON; as a message it is shorter."""
M = TypeVar("M", bound=Message)
MOST_JOBS = 1000
MOST_TASKS = 10_000
"""How many tasks one list describes; older jobs come without theirs."""
PAGE = 500
"""How many devices one answer describes: to spell more would keep everybody else waiting for too long."""


class Desk:
    """Where clients are answered, by their rights: on `reply_to`, which must be a topic of their own."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.rejections: Counter[str] = Counter()
        """How many requests were answered with no, by the kind of failure."""

    def serve(
        self,
        kind: type[M],
        handler: Callable[[Received, M], Awaitable[Message | None]],
    ) -> None:
        """Have requests of a kind, one of those in `RIGHTS`, handled; the handler returns the answer."""
        assert kind in RIGHTS, f"somebody must say who may send {kind.wire}"

        async def answer(received: Received, request: M) -> None:
            address = received.address
            own = topics.client_dn(address.site, address.name)
            if received.reply_to not in (None, own):
                detail = f"answers to {address.name} go to {own}, not to {received.reply_to}"
                self._peer.refuse("reply_to", received.topic, detail)
                return
            if (why := staleness(received, time.time())) is not None:
                self._peer.refuse("stale", received.topic, why)
                self.answer(received, rejected(FailureKind.FORBIDDEN, why))
                return
            if reach(received) is None:
                self.answer(received, Rejected(failure=forbidden(received)))
                return
            reply = await handler(received, request)
            if reply is not None:
                self.answer(received, reply)

        admit(self._peer, kind, ("client",), answer)

    def answer(self, received: Received, message: Message) -> None:
        """Answer a request."""
        address = received.address
        self._peer.post(topics.client_dn(address.site, address.name), message, corr=received.id)
        if isinstance(message, Rejected):
            self.rejections[message.failure.kind.value] += 1
            log.info("request rejected", client=address.name, failure=str(message.failure))


class Requests:
    """Questions about jobs, sites and devices, jobs canceled, devices drained."""

    def __init__(
        self,
        desk: Desk,
        inbox: Inbox,
        scheduler: Scheduler,
        registry: Registry,
        sites: Callable[[], SiteList],
        jobs: Jobs,
    ) -> None:
        self._desk = desk
        self._inbox = inbox
        self._scheduler = scheduler
        self._registry = registry
        self._sites = sites
        self._jobs = jobs
        desk.serve(JobQuery, self._on_job_query)
        desk.serve(JobCancel, self._on_job_cancel)
        desk.serve(SiteQuery, self._on_site_query)
        desk.serve(DeviceQuery, self._on_device_query)
        desk.serve(DeviceDrain, self._on_drain)
        desk.serve(DeviceUndrain, self._on_undrain)

    async def _on_job_query(self, received: Received, query: JobQuery) -> Message:
        if query.job is None:
            statuses = self._scheduler.statuses(MOST_JOBS)
            return JobList(
                jobs=_within_limits([one for one in statuses if self._concerns(received, one.job)])
            )
        status = self._status(received, query.job)
        return status if isinstance(status, Rejected) else JobList(jobs=(status,))

    async def _on_job_cancel(self, received: Received, cancel: JobCancel) -> Message:
        status = self._status(received, cancel.job)
        if isinstance(status, Rejected) or status.state.ended:
            return status
        await self._inbox.post(JobCanceled(self._inbox.now(), JobId(cancel.job), *who(received)))
        return self._status(received, cancel.job)

    async def _on_site_query(self, _received: Received, _query: SiteQuery) -> Message:
        return self._sites()

    async def _on_device_query(self, _received: Received, query: DeviceQuery) -> Message:
        if query.device is not None:
            return self._devices(query.device)
        reports = self._scheduler.devices(query.after, PAGE + 1)
        kept = _fitting(map(self._registry.complete, reports[:PAGE]))
        return DeviceList(devices=kept, more=len(kept) < len(reports))

    async def _on_drain(self, received: Received, request: DeviceDrain) -> Message:
        report = self._device(request.device)
        if isinstance(report, Rejected):
            return report
        by, role = who(received)
        if report.drained != Drain(by=by, role=role, reason=request.reason):
            device = DeviceId(report.device)
            await self._inbox.post(DeviceDrained(self._inbox.now(), device, request.reason, by, role))
        return self._devices(report.device)

    async def _on_undrain(self, received: Received, request: DeviceUndrain) -> Message:
        report = self._device(request.device)
        if isinstance(report, Rejected):
            return report
        if report.drained is not None:
            device = DeviceId(report.device)
            await self._inbox.post(DeviceUndrained(self._inbox.now(), device, *who(received)))
        return self._devices(report.device)

    def _device(self, name: str) -> DeviceReport | Rejected:
        """Return the one device of a name."""
        found = self._devices(name)
        if isinstance(found, Rejected) or len(found.devices) == 1:
            return found if isinstance(found, Rejected) else found.devices[0]
        places = ", ".join(report.device for report in found.devices[:20])
        return rejected(
            FailureKind.NO_MATCHING_DEVICE, f"device {name!r} is at several sites: {places}; name one of them"
        )

    def _devices(self, name: str) -> DeviceList | Rejected:
        reports = self._scheduler.devices()
        if fitting := [report for report in reports if _is_called(report, name)]:
            return DeviceList(devices=_fitting(map(self._registry.complete, fitting[:PAGE])))
        known = ", ".join([report.device for report in reports][:20]) or "none yet"
        return rejected(FailureKind.NO_MATCHING_DEVICE, f"device {name!r} is not known; known are: {known}")

    def _status(self, received: Received, job: str) -> JobStatus | Rejected:
        if self._concerns(received, job):
            with contextlib.suppress(KeyError):
                return self._scheduler.status(JobId(job))
        return rejected(FailureKind.JOB_INVALID, f"job {job!r} is not known to this hub")

    def _concerns(self, received: Received, job: str) -> bool:
        """Return whether a job is within reach of whoever asks."""
        if reach(received) == "all":
            return True
        known = self._jobs.find(JobId(job))
        return known is not None and reaches(received, known.site, known.client)


def rejected(kind: FailureKind, detail: str) -> Rejected:
    """Make an answer that says no."""
    return Rejected(failure=Failure(kind=kind, detail=detail))


def _is_called(report: DeviceReport, name: str) -> bool:
    return name in (report.device, report.device.partition("/")[2])


def _fitting(reports: Iterable[DeviceReport]) -> tuple[DeviceReport, ...]:
    """Return the first devices, as many as fit into a message; one always does."""
    kept, size = [], 0
    for report in reports:
        size += len(report.model_dump_json())
        if size > MOST_BYTES:
            break
        kept.append(report)
    return tuple(kept)


def _within_limits(statuses: list[JobStatus]) -> tuple[JobStatus, ...]:
    """Leave out what tasks cost, and the tasks of older jobs: the answer must fit into a message."""
    kept, count = [], 0
    for status in statuses:
        count += len(status.tasks)
        tasks = tuple(task.model_copy(update={"costs": ()}) for task in status.tasks)
        kept.append(status.model_copy(update={"tasks": tasks if count <= MOST_TASKS else ()}))
    return tuple(kept)
