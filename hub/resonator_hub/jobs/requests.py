"""What clients ask: each request is checked, done once, and answered on the client's own topic."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from resonator.bus import topics
from resonator.bus.peer import Peer, Received
from resonator.failures import Failure, FailureKind
from resonator.ids import JobId
from resonator.messages import (
    DeviceList,
    DeviceQuery,
    DeviceReport,
    JobCancel,
    JobList,
    JobQuery,
    JobStatus,
    Message,
    Rejected,
)
from resonator_hub.door import admit
from resonator_hub.fleet import Registry
from resonator_hub.inbox import Inbox
from resonator_hub.jobs.store import Jobs
from resonator_hub.scheduler import Scheduler
from resonator_hub.scheduler.events import JobCanceled

log = structlog.get_logger(__name__)
M = TypeVar("M", bound=Message)
MOST_JOBS = 1000
MOST_TASKS = 10_000
"""How many tasks one list describes; older jobs come without theirs."""


class Desk:
    """Where clients are answered: on `reply_to`, which must be a topic of their own."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def serve(
        self,
        kind: type[M],
        handler: Callable[[Received, M], Awaitable[Message | None]],
        *,
        acts: bool = False,
    ) -> None:
        """Have requests of a kind handled; what the handler returns is sent as the answer.

        One that `acts` is refused to those who may only look.
        """

        async def answer(received: Received, request: M) -> None:
            address = received.address
            own = topics.client_dn(address.site, address.name)
            if received.reply_to not in (None, own):
                detail = f"answers to {address.name} go to {own}, not to {received.reply_to}"
                self._peer.refuse("reply_to", received.topic, detail)
                return
            if acts and received.party is not None and received.party.role == "viewer":
                self.answer(received, rejected(FailureKind.FORBIDDEN, "a viewer may look, and do nothing"))
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
            log.info("request rejected", client=address.name, failure=str(message.failure))


class Requests:
    """Questions about jobs and devices, and cancellations."""

    def __init__(
        self, desk: Desk, inbox: Inbox, scheduler: Scheduler, registry: Registry, jobs: Jobs
    ) -> None:
        self._desk = desk
        self._inbox = inbox
        self._scheduler = scheduler
        self._registry = registry
        self._jobs = jobs
        desk.serve(JobQuery, self._on_job_query)
        desk.serve(JobCancel, self._on_job_cancel, acts=True)
        desk.serve(DeviceQuery, self._on_device_query)

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
        client = f"{received.address.site}/{received.address.name}"
        await self._inbox.post(JobCanceled(self._inbox.now(), JobId(cancel.job), client))
        return self._status(received, cancel.job)

    async def _on_device_query(self, _received: Received, query: DeviceQuery) -> Message:
        reports = [self._registry.complete(report) for report in self._scheduler.devices()]
        if query.device is None:
            return DeviceList(devices=tuple(reports))
        fitting = tuple(report for report in reports if _is_called(report, query.device))
        if fitting:
            return DeviceList(devices=fitting)
        known = ", ".join(sorted(report.device for report in reports)[:20]) or "none yet"
        return rejected(
            FailureKind.NO_MATCHING_DEVICE,
            f"device {query.device!r} is not known; known are: {known}",
        )

    def _status(self, received: Received, job: str) -> JobStatus | Rejected:
        if self._concerns(received, job):
            with contextlib.suppress(KeyError):
                return self._scheduler.status(JobId(job))
        return rejected(FailureKind.JOB_INVALID, f"job {job!r} is not known to this hub")

    def _concerns(self, received: Received, job: str) -> bool:
        """Return whether a client may know of a job: a submitter of his own alone."""
        if received.party is None or received.party.role != "submitter":
            return True
        known = self._jobs.find(JobId(job))
        return known is not None and (known.site, known.client) == (received.party.site, received.party.name)


def rejected(kind: FailureKind, detail: str) -> Rejected:
    """Make an answer that says no."""
    return Rejected(failure=Failure(kind=kind, detail=detail))


def _is_called(report: DeviceReport, name: str) -> bool:
    return name in (report.device, report.device.partition("/")[2])


def _within_limits(statuses: list[JobStatus]) -> tuple[JobStatus, ...]:
    """Leave out what tasks cost, and the tasks of older jobs: the answer must fit into a message."""
    kept, count = [], 0
    for status in statuses:
        count += len(status.tasks)
        tasks = tuple(task.model_copy(update={"costs": ()}) for task in status.tasks)
        kept.append(status.model_copy(update={"tasks": tasks if count <= MOST_TASKS else ()}))
    return tuple(kept)
