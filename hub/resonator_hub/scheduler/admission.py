"""The door: what may happen now, what is late or repeated, and what cannot be."""

from __future__ import annotations

from typing import Any

from resonator.ids import CandidateId, DeviceId, JobId, TaskId, model_id
from resonator_hub.scheduler.batch import Batch
from resonator_hub.scheduler.desk import Desk
from resonator_hub.scheduler.device import Device
from resonator_hub.scheduler.events import (
    BuildFailed,
    BundleDelivered,
    CandidatesSelected,
    DeviceDrained,
    DeviceLost,
    DeviceSeen,
    DeviceUndrained,
    Event,
    JobCanceled,
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
from resonator_hub.scheduler.job import Job
from resonator_hub.scheduler.transitions import (
    ANSWER,
    CANDIDATE,
    DEVICE,
    JOB,
    ROUND,
    CandidateState,
    RoundState,
)
from resonator_hub.scheduler.tuning import numbered

ENDED = "the job has ended"
REPEATED = "answered before"
UNASKED = "a result nobody asked for"
OUTDATED = "a window that is over"


def step_key(event: Event) -> tuple[Any, ...] | None:
    """Return the key of the compute step that an event answers, or None when it answers none."""
    match event:
        case TasksExtracted():
            return ("extract", event.job)
        case CandidatesSelected():
            return ("select", event.task, event.round)
        case KernelBuilt() | BuildFailed():
            return ("build", event.candidate)
        case ModelUpdated():
            return ("update", event.task, event.round)
        case ModelCompiled():
            return ("compile", event.job, event.tuned)
        case BundleDelivered():
            return ("deliver", event.job)
        case StageFailed(stage="select" | "update"):
            return (event.stage, event.task, event.round)
        case StageFailed(stage="compile"):
            return ("compile", event.job, event.tuned)
        case StageFailed():
            return (event.stage, event.job)
    return None


class Admission:
    """Checks an event against the tables before anything changes."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def check(self, event: Event) -> str | None:
        """Return why an event is to be ignored, or None to take it; raises IllegalTransition."""
        match event:
            case JobSubmitted():
                known = event.job in self._desk.jobs or event.job in self._desk.ended
                return "submitted before" if known else None
            case JobCanceled():
                return None if event.job in self._desk.jobs else ENDED
            case Measured():
                return self._check_measured(event)
            case WindowOpened() | WindowRefused() | WindowClosed():
                return self._check_window(event)
            case DeviceSeen():
                return self._check_seen(event)
            case DeviceLost() | DeviceDrained() | DeviceUndrained():
                return None if event.device in self._desk.fleet.devices else "an unknown device"
        return self._check_step(event) if step_key(event) else None

    def _check_measured(self, event: Measured) -> str | None:
        job = self._desk.jobs.get(event.job)
        if job is None:
            return ENDED if event.job in self._desk.ended else UNASKED
        candidate = job.candidates.get(event.candidate)
        if candidate is None:
            return REPEATED if self._was_candidate(job, event.candidate) else UNASKED
        if (event.device, event.epoch) not in candidate.pushes:
            return UNASKED
        return None if CANDIDATE.get((candidate.state, Measured)) else REPEATED

    def _check_window(self, event: WindowOpened | WindowRefused | WindowClosed) -> str | None:
        device: Device | None = self._desk.fleet.devices.get(event.device)
        if device is None or device.window is None or device.window.epoch != event.epoch:
            return OUTDATED
        return None if DEVICE.get((device.phase, type(event))) else OUTDATED

    def _check_seen(self, event: DeviceSeen) -> str | None:
        # A device that is away may return with a lower session: its state directory was wiped.
        device = self._desk.fleet.devices.get(DeviceId(event.device))
        outdated = device is not None and device.present and event.session < device.session
        return "an older session" if outdated else None

    def _check_step(self, event: Event) -> str | None:
        name: JobId = getattr(event, "job")  # noqa: B009 - every answer of a step bears its job
        if name in self._desk.ended:
            return ENDED
        job = self._desk.jobs.get(name)
        if job is None:
            raise self._desk.illegal(name, f"{type(event).__name__} for a job that was never submitted")
        key = step_key(event)
        assert key is not None, "only answers of steps come here"
        step = job.steps.get(key)
        if step is not None:
            if not step.asked:
                raise self._desk.illegal(name, f"{type(event).__name__} before it was asked for")
            self._check_form(job, event)
            return None
        return self._check_late(job, event)

    def _check_form(self, job: Job, event: Event) -> None:
        if isinstance(event, CandidatesSelected):
            batch = job.batches[f"{event.task}/r{event.round}"]
            if not numbered(batch, event):
                raise self._desk.illegal(
                    batch.key,
                    f"CandidatesSelected with {len(event.candidates)} candidates, asked for were "
                    f"{batch.count} numbered from {batch.first}",
                )

    def _check_late(self, job: Job, event: Event) -> str | None:
        """An answer to nothing that is under way: repeated if it was once asked for, else illegal."""
        cause = ANSWER[event.stage] if isinstance(event, StageFailed) else type(event)
        match event:
            case KernelBuilt() | BuildFailed():
                late = self._was_candidate(job, event.candidate) and self._candidate_past(job, event, cause)
            case CandidatesSelected() | ModelUpdated() | StageFailed(stage="select" | "update"):
                late = self._round_past(job, event, cause)
            case ModelCompiled() | StageFailed(stage="compile"):
                late = self._compile_past(job, bool(event.tuned), cause)
            case _:
                late = JOB.get((job.phase, cause), job.phase) is None
        if not late:
            raise self._desk.illegal(job.id, f"{type(event).__name__} that was never asked for")
        return REPEATED

    def _candidate_past(self, job: Job, event: KernelBuilt | BuildFailed, cause: type[Event]) -> bool:
        candidate = job.candidates.get(event.candidate)
        state = candidate.state if candidate else CandidateState.GONE
        return CANDIDATE.get((state, cause), state) is None

    def _compile_past(self, job: Job, tuned: bool, cause: type[Event]) -> bool:
        batch = job.batches.get(model_id(job.id, tuned=tuned))
        if batch is None:
            return bool(job.tasks) and (not tuned or job.bundle is not None)
        state = next(iter(batch.live.values())).state
        return CANDIDATE.get((state, cause), state) is None

    def _round_past(
        self, job: Job, event: CandidatesSelected | ModelUpdated | StageFailed, cause: type[Event]
    ) -> bool:
        task = job.task_of.get(event.task) if event.task is not None else None
        if task is None or event.round is None or not 0 <= event.round < task.rounds:
            return False
        batch: Batch | None = job.batches.get(f"{task.id}/r{event.round}")
        state = batch.state if batch else RoundState.COMPLETE
        return ROUND.get((state, cause), state) is None

    def _was_candidate(self, job: Job, name: CandidateId) -> bool:
        task_name, _, number = name.rpartition("/c")
        task = job.task_of.get(TaskId(task_name))
        if task is not None and number.isdecimal():
            return int(number) < task.next_candidate
        return name in {model_id(job.id, tuned=False), model_id(job.id, tuned=True)}
