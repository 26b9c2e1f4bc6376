"""The scheduler: events in, commands out. It never looks at a clock, a socket or a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from resonator.failures import Failure, FailureKind, Fault
from resonator.ids import DeviceId, JobId
from resonator.messages import DeviceReport, JobStatus
from resonator_hub.scheduler.admission import Admission, step_key
from resonator_hub.scheduler.census import Census, census
from resonator_hub.scheduler.commands import Command, Report, WakeAt
from resonator_hub.scheduler.desk import Desk
from resonator_hub.scheduler.device import Device
from resonator_hub.scheduler.dispatch import Dispatch
from resonator_hub.scheduler.ended import EndedJob
from resonator_hub.scheduler.events import (
    Answer,
    BuildFailed,
    BundleDelivered,
    CandidatesSelected,
    DeviceDrained,
    DeviceLost,
    DeviceSeen,
    DeviceUndrained,
    Event,
    HubStarted,
    JobCanceled,
    JobOrder,
    JobSubmitted,
    KernelBuilt,
    Measured,
    ModelCompiled,
    ModelUpdated,
    StageFailed,
    TasksExtracted,
    WindowClosed,
    WindowOpened,
    WindowRefused,
)
from resonator_hub.scheduler.fleet import Watch
from resonator_hub.scheduler.job import Job
from resonator_hub.scheduler.knobs import Knobs
from resonator_hub.scheduler.memory import restore, save
from resonator_hub.scheduler.models import Models
from resonator_hub.scheduler.policies import POLICIES
from resonator_hub.scheduler.reporting import device_report, job_status
from resonator_hub.scheduler.story import Stories
from resonator_hub.scheduler.transitions import Cue, JobPhase
from resonator_hub.scheduler.tuning import Tuning
from resonator_hub.scheduler.windows import Windows

_ENDED = {JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.CANCELED}


class Scheduler:
    """Decides what every compute slot and every device does next.

    `policy` is one of `policies.POLICIES`; raises ValueError for another.
    """

    def __init__(self, policy: str = "load_aware", knobs: Knobs | None = None) -> None:
        if policy not in POLICIES:
            raise ValueError(f"policy {policy!r} is none of {', '.join(POLICIES)}")
        knobs = knobs or Knobs()
        self._desk = Desk(POLICIES[policy], knobs, Stories(knobs.stories, knobs.story_lines))
        self._windows = Windows(self._desk)
        self._models = Models(self._desk, self._windows)
        self._tuning = Tuning(self._desk, self._windows, self._models)
        self._dispatch = Dispatch(self._desk, self._tuning)
        self._admission = Admission(self._desk)

    # --- the only way in ------------------------------------------------------------------------------

    def step(self, event: Event) -> list[Command]:
        """Take one event and return what to do; raises IllegalTransition, having changed nothing."""
        desk = self._desk
        reason = self._admission.check(event)
        desk.now = max(desk.now, event.at)
        self._book(event, taken=reason is None)
        if key := step_key(event):
            desk.compute.vacate(key)
        if reason is not None:
            desk.ignore(reason)
        else:
            self._take(event)
        self._settle()
        desk.out.extend(Report(job, ended) for job, ended in desk.changed.items())
        desk.changed.clear()
        if (wake := desk.timers.next()) is not None:
            desk.out.append(WakeAt(wake))
        commands, desk.out = desk.out, []
        return commands

    def _book(self, event: Event, *, taken: bool) -> None:
        """Put down what an event says was spent, whether or not anything comes of it."""
        if not isinstance(event, Answer | Measured) or event.job not in self._desk.jobs:
            return
        ledger = self._desk.jobs[event.job].ledger
        if isinstance(event, Measured):
            ledger.measured(event, taken=taken)
        else:
            ledger.answered(event, taken=taken)

    def _take(self, event: Event) -> None:
        match event:
            case JobSubmitted():
                self._submitted(event)
            case JobCanceled():
                self._desk.move_job(self._desk.jobs[event.job], JobCanceled)
                self._follow_up(self._desk.jobs[event.job])
            case Measured():
                self._measured(event)
            case DeviceSeen():
                self._seen(event)
            case DeviceDrained() | DeviceUndrained():
                self._drained(event, self._desk.fleet.devices[event.device])
            case DeviceLost() | WindowOpened() | WindowRefused() | WindowClosed():
                self._device_event(event, self._desk.fleet.devices[event.device])
            case HubStarted():
                self._restarted(event)
            case _ if step_key(event):
                self._answered(event)

    def _settle(self) -> None:
        """Let time pass, tell batches of kernels that were given up, and fill the compute slots."""
        desk = self._desk
        while True:
            if desk.given_up:
                candidate = desk.given_up.popleft()
                job = candidate.batch.job
                if job.id in desk.jobs:
                    self._tuning.give_up(candidate)
                    self._follow_up(job)
            elif (due := desk.timers.due(desk.now)) is not None:
                self._wake(*due)
            else:
                break
        self._dispatch.fill()

    def _wake(self, subject: str, name: str) -> None:
        if subject == "device":
            device = self._desk.fleet.devices[DeviceId(name)]
            self._windows.tend(device)
        elif (job := self._desk.jobs.get(JobId(name))) is not None:
            job.out_of_time = True
            self._follow_up(job)

    # --- jobs -----------------------------------------------------------------------------------------

    def _submitted(self, event: JobSubmitted) -> None:
        desk = self._desk
        desk.jobs_seen += 1
        job = desk.jobs[event.job] = Job(event.job, desk.jobs_seen, event.order, event.at)
        desk.stories.tell(job.id, desk.now, "JobSubmitted", job.phase.value)
        desk.report(job.id)
        desk.fleet.watch(event.order.target).queued[job.id] = job
        self._start_if_possible(job)

    def _start_if_possible(self, job: Job) -> None:
        desk = self._desk
        watch = desk.fleet.watch(job.order.target)
        pool = watch.best_pool()
        if pool is None or (desk.policy.one_job and desk.running):
            return
        del watch.queued[job.id]
        self._tuning.start(job, pool)
        self._follow_up(job)

    def _follow_up(self, job: Job) -> None:
        """After anything that concerned a job: go on with it, or be done with it."""
        if job.id not in self._desk.jobs:
            return
        self._tuning.advance(job)
        if job.phase in _ENDED:
            self._end(job)
            return
        self._desk.report(job.id)
        self._dispatch.touch(job)

    def _end(self, job: Job) -> None:
        desk = self._desk
        desk.fleet.watch(job.order.target).queued.pop(job.id, None)
        self._dispatch.withdraw(job)
        self._windows.release(job)
        desk.running.pop(job.id, None)
        del desk.jobs[job.id]
        job.ledger.finish()
        desk.ended.keep(job_status(desk, job))
        desk.report(job.id, ended=True)
        if desk.policy.one_job:
            for other in desk.jobs.values():
                if other.phase is JobPhase.QUEUED and not desk.running:
                    self._start_if_possible(other)

    def _answered(self, event: Event) -> None:
        """A compute step has its answer."""
        desk, key = self._desk, step_key(event)
        job = desk.jobs[event.job]  # type: ignore[union-attr]
        assert key is not None, "only answers of steps come here"
        step = job.steps.pop(key)
        self._dispatch.learn(job, step, getattr(event, "took_s", 0.0))
        match event:
            case TasksExtracted():
                self._tuning.extracted(job, event)
            case CandidatesSelected():
                self._tuning.selected(job.batches[f"{event.task}/r{event.round}"], event)
            case KernelBuilt():
                self._windows.built(job.candidates[event.candidate], event.kernel, event.size, KernelBuilt)
            case BuildFailed():
                desk.move_candidate(job.candidates[event.candidate], BuildFailed)
                self._tuning.build_failed(job.candidates[event.candidate])
            case ModelUpdated():
                self._tuning.updated(job.batches[f"{event.task}/r{event.round}"])
            case ModelCompiled() if step.candidate is not None:
                self._models.compiled(job, step.candidate, event)
            case BundleDelivered():
                job.delivered = event
                desk.delivered[event.bundle] = (*desk.delivered.get(event.bundle, ()), job.id)
                desk.move_job(job, BundleDelivered)
            case StageFailed():
                self._stage_failed(job, event)
        self._follow_up(job)

    def _stage_failed(self, job: Job, event: StageFailed) -> None:
        if event.stage == "select":
            self._tuning.select_failed(job.batches[f"{event.task}/r{event.round}"])
        elif event.stage == "update":
            self._tuning.updated(job.batches[f"{event.task}/r{event.round}"])
        else:
            job.failure = event.failure
            self._desk.move_job(job, Cue.FAILED)

    def _measured(self, event: Measured) -> None:
        desk = self._desk
        job, device = desk.jobs[event.job], desk.fleet.devices[event.device]
        candidate = job.candidates[event.candidate]
        if not candidate.batch.model:
            desk.estimates.observe("profile", event.device_time_s, job.place.hardware)
        failure = event.failure
        if failure is None and not event.latencies:
            failure = Failure(
                kind=FailureKind.MESSAGE_INVALID, detail="a result with neither timings nor failure"
            )
        if failure is not None and failure.kind.fault is not Fault.KERNEL:
            candidate.failure = failure
            if failure.kind.fault is Fault.DEVICE:
                self._windows.strike(device, str(failure))
            self._windows.unanswered(candidate, device, event.epoch)
        else:
            device.strikes = 0
            desk.move_candidate(candidate, Measured)
            self._windows.answered(candidate, device.id, event.epoch, event.device_time_s)
            self._tuning.measured(candidate, event)
        self._follow_up(job)
        self._windows.tend(device)

    # --- devices --------------------------------------------------------------------------------------

    def _seen(self, event: DeviceSeen) -> None:
        desk, windows = self._desk, self._windows
        device = desk.fleet.devices.setdefault(event.device, Device(event.device))
        window = device.window
        restarted = event.session > device.session
        device.epoch, known_epoch = max(device.epoch, event.epoch), device.epoch
        is_new = (event.cpu_model, event.offers, event.labels) != (
            device.cpu_model,
            device.offers,
            device.labels,
        )
        if window is not None and (restarted or is_new or event.epoch > known_epoch):
            windows.end(device, Cue.EXPIRED)
        device.session, device.available, device.hidden = event.session, event.available, False
        desk.move_device(device, DeviceSeen)
        if is_new:
            stranded = list(device.batches.values())
            desk.fleet.unindex(device)
            device.cpu_model, device.offers, device.labels = event.cpu_model, event.offers, event.labels
            matched = desk.fleet.index(device)
            for batch in stranded:
                windows.move_away(batch)
        else:
            matched = [pool.watch for pool in device.pools]
        if not event.visible:
            windows.hide(device)
        desk.fleet.place(device)
        self._start_queued(matched)
        windows.tend(device)

    def _start_queued(self, watches: Sequence[Watch]) -> None:
        """A device may be granted: begin with the jobs that have waited for a first one."""
        for watch in watches:
            for job in list(watch.queued.values()):
                self._start_if_possible(job)

    def _drained(self, event: DeviceDrained | DeviceUndrained, device: Device) -> None:
        """A device gets no new window, and its present one is ended; or it may be granted again."""
        desk, watches = self._desk, [pool.watch for pool in device.pools]
        desk.move_device(device, type(event))
        device.drained = event if isinstance(event, DeviceDrained) else None
        desk.fleet.place(device)
        self._start_queued(watches)
        if device.window is None:
            self._windows.resettle(device)
        else:
            self._windows.tend(device)
        concerned = [job for watch in watches for job in watch.queued.values()]
        for job in (*concerned, *(job for job in desk.running.values() if job.place in device.pools)):
            desk.report(job.id)  # what it waits for may have changed

    def _device_event(
        self, event: DeviceLost | WindowOpened | WindowRefused | WindowClosed, device: Device
    ) -> None:
        windows = self._windows
        match event:
            case DeviceLost():
                windows.lose(device, certain=event.certain)
            case WindowOpened():
                windows.opened(device)
            case WindowRefused():
                device.epoch = max(device.epoch, event.highest or 0)
                windows.strike(device, f"refused a window: {event.reason}")
                windows.end(device, WindowRefused)
            case WindowClosed():
                # The device itself cut its kernel short, or was restarted: perhaps because of the kernel.
                culprit = event.reason in {"expired", "restarted"}
                windows.end(device, WindowClosed, culprit=culprit)

    def _restarted(self, event: HubStarted) -> None:
        desk = self._desk
        for step in reversed(desk.compute.restart(event.slots)):
            job = desk.jobs.get(step.job)
            if job is not None and job.steps.get(step.key) is step:
                job.put_back(step)
        self._windows.end_all(Cue.RESTARTED)
        for job in list(desk.jobs.values()):
            self._follow_up(job) if job.phase is not JobPhase.QUEUED else desk.report(job.id)

    # --- questions ------------------------------------------------------------------------------------

    def objection(self, order: JobOrder) -> Failure | None:
        """Return why a job is not worth taking in, before it is: no device ever seen can match it.

        A fleet of which nothing is known yet is no objection: the job waits.
        """
        fleet = self._desk.fleet
        if not fleet.devices or fleet.matches_any(order.target):
            return None
        has = ", ".join(f"{key} ({count})" for key, count in fleet.offers(most=40).items())
        return Failure(
            kind=FailureKind.NO_MATCHING_DEVICE,
            detail=f"no device offers {order.target}; the fleet has {has}",
        )

    def status(self, job: JobId) -> JobStatus:
        """Return a job's public status; raises KeyError for a job never submitted."""
        if job in self._desk.ended:
            return self._desk.ended[job]
        return job_status(self._desk, self._desk.jobs[job])

    def delivered(self, bundle: str) -> tuple[JobId, ...]:
        """Return the jobs that have delivered a bundle, by its digest; mostly it is one."""
        return self._desk.delivered.get(bundle, ())

    def statuses(self, limit: int = 100) -> list[JobStatus]:
        """Return the status of up to `limit` jobs: those that have not ended first, each newest first."""
        names = [*reversed(self._desk.jobs), *reversed(self._desk.ended)]
        return [self.status(name) for name in names[:limit]]

    def devices(self, after: str = "", most: int | None = None) -> list[DeviceReport]:
        """Return every device ever seen, by name; or `most` of those whose names come after one."""
        devices, strikes = self._desk.fleet.devices, self._desk.knobs.strikes
        names = sorted(name for name in devices if name > after)
        return [device_report(devices[name], strikes) for name in names[:most]]

    def census(self) -> Census:
        """Return how much there is of everything."""
        return census(self._desk)

    def story(self, entity: str) -> list[str]:
        """Return what happened to a job, round, candidate or device, oldest first, a line each."""
        return self._desk.stories.of(entity)

    @property
    def ignored(self) -> dict[str, int]:
        """How many late and repeated events were dropped, by reason."""
        return dict(self._desk.ignored)

    def save(self) -> bytes:
        """Return all that decides what comes next; jobs that have ended are kept by themselves."""
        return save(self._desk)

    def ended(self, after: int = 0) -> Iterator[EndedJob]:
        """Yield the jobs that have ended but the first `after`, the one that ended first of them first."""
        return self._desk.ended.after(after)

    def restore(self, state: bytes, ended: Iterable[EndedJob]) -> None:
        """Know what another knew when it was saved; raises SnapshotUnreadable, having changed nothing."""
        restore(self._desk, state, ended)
