"""What has happened since the hub started, counted: windows, trials, failures, and how long things took."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from resonator.failures import Failure
from resonator.ids import CandidateId, DeviceId, JobId, site_of
from resonator.messages import JobStatus
from resonator_hub.scheduler.commands import Command, OpenWindow, Profile, Record, Report
from resonator_hub.scheduler.events import (
    Answer,
    BuildFailed,
    BundleDelivered,
    CandidatesSelected,
    DeviceLost,
    Event,
    JobSubmitted,
    KernelBuilt,
    Measured,
    ModelCompiled,
    ModelUpdated,
    Stage,
    StageFailed,
    TasksExtracted,
    WindowClosed,
    WindowOpened,
    WindowRefused,
)
from resonator_hub.watch.labels import Bounded

FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
"""Seconds: what takes a disk or a turn of the event loop."""
SLOW = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
"""Seconds: what takes a network, a compiler or a box."""

_STAGE: dict[type[Event], Stage] = {
    TasksExtracted: "extract",
    CandidatesSelected: "select",
    KernelBuilt: "build",
    BuildFailed: "build",
    ModelUpdated: "update",
    ModelCompiled: "compile",
    BundleDelivered: "deliver",
}


class Counts:
    """An observer that counts into a registry; `status` says how a job ended.

    Sites are told apart up to a limit; jobs, candidates and devices are not.
    """

    def __init__(self, registry: CollectorRegistry, status: Callable[[JobId], JobStatus]) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"resonator_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"resonator_{name}", text, labels, buckets=buckets, registry=registry)

        self._status = status
        self._site = Bounded()
        self._granted_at: dict[DeviceId, float] = {}
        self._pushed_at: dict[DeviceId, dict[CandidateId, float]] = {}
        self._events = counter("events", "Events taken by the scheduler.", "event")
        self._submitted = counter("jobs_submitted", "Jobs taken in.")
        self._ended = counter("jobs_ended", "Jobs that have ended.", "state")
        self._granted = counter("windows_granted", "Windows granted to devices.", "site")
        self._opened = counter("windows_opened", "Windows that devices have opened.", "site")
        self._refused = counter("windows_refused", "Grants refused, or never answered.", "site", "reason")
        self._closed = counter("windows_closed", "Windows that have ended.", "site", "reason")
        self._trials = counter(
            "trials", "Kernels and models measured, by what came of it.", "site", "outcome"
        )
        self._pushed = counter("kernels_pushed", "Kernels and models sent to devices.", "site")
        self._busy = counter("device_busy_seconds", "Time that devices spent on measuring.", "site")
        self._failures = counter(
            "failures", "Failures by kind, and by whose fault they are.", "kind", "fault"
        )
        self._records = counter("records", "Measurements kept for good.")
        self._cpu = counter("compute_cpu_seconds", "Processor time of compute steps.", "stage")
        self._took = histogram("compute_step_seconds", "How long compute steps took.", SLOW, "stage")
        self._commit = histogram("journal_commit_seconds", "How long commits of the journal took.", FAST)
        self._batch = histogram("journal_commit_events", "Events a commit.", (1, 2, 5, 10, 20, 50, 100, 500))
        self._wait = histogram("event_to_step_seconds", "From what happens to what is done about it.", FAST)
        self._grant = histogram("window_grant_seconds", "From a grant to the device's word.", SLOW)
        self._round = histogram("kernel_round_trip_seconds", "From a kernel's sending to its result.", SLOW)

    def committed(self, events: int, seconds: float) -> None:
        """Note how long the disk took."""
        self._commit.observe(seconds)
        self._batch.observe(events)

    def stepped(self, event: Event, commands: Sequence[Command], waited_s: float) -> None:
        """Count an event and what came of it."""
        self._events.labels(type(event).__name__).inc()
        self._wait.observe(max(0.0, waited_s))
        self._count(event)
        if isinstance(event, Answer):
            self._answered(event)
        for command in commands:
            self._command(event.at, command)

    def _count(self, event: Event) -> None:
        match event:
            case JobSubmitted():
                self._submitted.inc()
            case WindowOpened():
                self._opened.labels(self._site(site_of(event.device))).inc()
                if (granted_at := self._granted_at.get(event.device)) is not None:
                    self._grant.observe(max(0.0, event.at - granted_at))
            case WindowRefused():
                reason = "unanswered" if event.highest is None else "refused"
                self._refused.labels(self._site(site_of(event.device)), reason).inc()
                self._over(event.device)
            case WindowClosed():
                self._close(event.device, event.reason)
            case DeviceLost(certain=True):
                self._close(event.device, "lost")
            case Measured():
                self._measured(event)

    def _measured(self, event: Measured) -> None:
        site = self._site(site_of(event.device))
        self._trials.labels(site, _outcome(event)).inc()
        self._busy.labels(site).inc(event.device_time_s)
        pushed_at = self._pushed_at.get(event.device, {}).pop(event.candidate, None)
        if pushed_at is not None:
            self._round.observe(max(0.0, event.at - pushed_at))
        if event.failure is not None:
            self._fail(event.failure)

    def _answered(self, event: Answer) -> None:
        stage = event.stage if isinstance(event, StageFailed) else _STAGE[type(event)]
        self._cpu.labels(stage).inc(event.cpu_s)
        if isinstance(event, (BuildFailed, StageFailed)):
            self._fail(event.failure)
        if not isinstance(event, StageFailed):
            self._took.labels(stage).observe(event.took_s)

    def _fail(self, failure: Failure) -> None:
        self._failures.labels(failure.kind.value, failure.kind.fault.value).inc()

    def _command(self, at: float, command: Command) -> None:
        match command:
            case OpenWindow():
                self._close(command.device, "lapsed")  # its lease was over without a word
                self._granted.labels(self._site(site_of(command.device))).inc()
                self._granted_at[command.device] = at
                self._pushed_at[command.device] = {}
            case Profile():
                self._pushed.labels(self._site(site_of(command.device))).inc()
                self._pushed_at.setdefault(command.device, {})[command.candidate] = at
            case Record():
                self._records.inc()
            case Report(ended=True):
                self._ended.labels(self._status(command.job).state.value).inc()

    def _close(self, device: DeviceId, reason: str) -> None:
        """Count the end of a window, once."""
        if device in self._granted_at:
            self._closed.labels(self._site(site_of(device)), reason).inc()
            self._over(device)

    def _over(self, device: DeviceId) -> None:
        self._granted_at.pop(device, None)
        self._pushed_at.pop(device, None)


def _outcome(event: Measured) -> str:
    if event.failure is not None:
        return "failed"
    return "raced" if event.raced else "measured"
