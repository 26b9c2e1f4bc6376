"""What a job has cost, by task and by what became of it: whatever is spent for a job has one entry."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import get_args

from resonator.failures import Fault
from resonator.ids import CandidateId, DeviceId, TaskId
from resonator.messages import Cost, Outcome
from resonator_hub.scheduler.events import (
    Answer,
    BuildFailed,
    CandidatesSelected,
    KernelBuilt,
    Measured,
    ModelUpdated,
    StageFailed,
)

_OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(slots=True)
class Entry:
    """Trials, seconds of devices and of the hub's processors, and joules where a box told them."""

    trials: int = 0
    device_s: float = 0.0
    cpu_s: float = 0.0
    joules: float | None = None

    def add(self, other: Entry) -> None:
        """Add what another entry says; energy that is not known adds nothing."""
        self.trials += other.trials
        self.device_s += other.device_s
        self.cpu_s += other.cpu_s
        if other.joules is not None:
            self.joules = (self.joules or 0.0) + other.joules


class Page:
    """The entries of one task, or of the whole model, by outcome."""

    def __init__(self) -> None:
        self._entries: dict[Outcome, Entry] = {}

    def add(self, outcome: Outcome, spent: Entry) -> None:
        """Add to an outcome's entry."""
        self._entries.setdefault(outcome, Entry()).add(spent)

    def add_all(self, other: Page) -> None:
        """Add what another page says."""
        for outcome, entry in other._entries.items():
            self.add(outcome, entry)

    def costs(self) -> tuple[Cost, ...]:
        """Return the page for people: in the order of `messages.Outcome`, only what occurred."""
        return tuple(
            Cost(
                outcome=outcome,
                trials=entry.trials,
                device_s=entry.device_s,
                cpu_s=entry.cpu_s,
                joules=entry.joules,
            )
            for outcome in _OUTCOMES
            if (entry := self._entries.get(outcome)) is not None
        )


class Ledger:
    """The books of one job; what its whole model takes belongs to no task.

    A candidate is under way, with what its build took, until its outcome is known. Time on a device that
    brought no result is discarded at once, while the candidate goes on.
    """

    def __init__(self) -> None:
        self._settled: defaultdict[TaskId | None, Page] = defaultdict(Page)
        self._under_way: dict[CandidateId, Entry] = {}
        self._reported: set[tuple[DeviceId, int, CandidateId]] = set()

    def answered(self, event: Answer, *, taken: bool) -> None:
        """A compute step has ended; `taken` unless nobody waits for it any more."""
        spent = Entry(cpu_s=event.cpu_s)
        match event:
            case CandidatesSelected() | ModelUpdated() | StageFailed(stage="select" | "update"):
                self._settled[event.task].add("search", spent)
            case KernelBuilt() | BuildFailed():
                self._built(event.candidate, spent)
            case _:
                self._settled[None].add("model", spent)
        if taken and isinstance(event, CandidatesSelected):
            self._under_way |= {found.candidate: Entry(trials=1) for found in event.candidates}
        if taken and isinstance(event, BuildFailed):
            self._settle(event.candidate, "build_failed")

    def measured(self, event: Measured, *, taken: bool) -> None:
        """A device has reported; `taken` unless the candidate has its outcome already."""
        report = (event.device, event.epoch, event.candidate)
        if not taken and report in self._reported:
            return  # the same once more
        self._reported.add(report)
        outcome = _outcome(event) if taken else "discarded"
        spent = Entry(device_s=event.device_time_s, joules=event.joules)
        self._settled[_task_of(event.candidate)].add(outcome, spent)
        if outcome != "discarded":
            self._settle(event.candidate, outcome)

    def dropped(self, candidate: CandidateId) -> None:
        """A candidate was given up."""
        self._settle(candidate, "discarded")

    def finish(self) -> None:
        """The job has ended: nothing is under way any more."""
        for candidate in list(self._under_way):
            self.dropped(candidate)
        self._reported.clear()

    def costs(self) -> tuple[dict[TaskId, tuple[Cost, ...]], tuple[Cost, ...]]:
        """Return what each task has cost, and what the job has cost in all, by outcome."""
        pages: defaultdict[TaskId | None, Page] = defaultdict(Page)
        for task, page in self._settled.items():
            pages[task].add_all(page)
        for candidate, entry in self._under_way.items():
            pages[_task_of(candidate)].add("under_way", entry)
        total = Page()
        for page in pages.values():
            total.add_all(page)
        return {task: page.costs() for task, page in pages.items() if task is not None}, total.costs()

    def _built(self, candidate: CandidateId, spent: Entry) -> None:
        if candidate in self._under_way:
            self._under_way[candidate].add(spent)
        else:
            self._settled[_task_of(candidate)].add("discarded", spent)

    def _settle(self, candidate: CandidateId, outcome: Outcome) -> None:
        if (spent := self._under_way.pop(candidate, None)) is not None:
            self._settled[_task_of(candidate)].add(outcome, spent)


def _task_of(candidate: CandidateId) -> TaskId | None:
    """Return the task that a candidate's name begins with; None for a whole model."""
    task, _, _ = candidate.rpartition("/c")
    return TaskId(task) if task else None


def _outcome(event: Measured) -> Outcome:
    """Return what became of a candidate; a device's failure says nothing of it."""
    failure = event.failure
    if not (event.latencies if failure is None else failure.kind.fault is Fault.KERNEL):
        return "discarded"
    if _task_of(event.candidate) is None:
        return "model"
    if failure is not None:
        return "failed"
    return "raced" if event.raced else "measured"
