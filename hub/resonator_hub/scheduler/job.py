"""One user's job: its budget, its tasks and what is under way for it."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

from resonator.failures import Failure
from resonator.ids import CandidateId, DeviceId, JobId, TaskId, model_id
from resonator_hub.scheduler.batch import Batch
from resonator_hub.scheduler.candidate import Candidate
from resonator_hub.scheduler.events import BundleDelivered, JobOrder, Measured, ModelCompiled
from resonator_hub.scheduler.ledger import Ledger
from resonator_hub.scheduler.step import ORDER, Step
from resonator_hub.scheduler.task import Task
from resonator_hub.scheduler.transitions import JobPhase

if TYPE_CHECKING:
    from resonator_hub.scheduler.device import Window
    from resonator_hub.scheduler.fleet import Pool

LEAST_WEIGHT = 2.0 ** (-5 / 2)
"""The weight of a job of priority 0; one of priority 5 weighs 1."""

_URGENCY = 3.0
"""How much the weight of a job with a time budget has grown when its time is over: from 1 to 1 + this."""


@dataclass(slots=True, eq=False)
class Job:
    """What the scheduler knows of a job that has not ended.

    `spent` trials were selected and `reserved` are being selected. `compute_share` and `device_share` are the
    seconds used of each resource, divided by the job's weight. `since` is when (in steps) it became ready.
    `quiet` trials ago the model's latency was `mark_s` and has not gained much since; `stopped` says why the
    search ended.
    """

    id: JobId
    number: int
    order: JobOrder
    submitted_at: float
    phase: JobPhase = JobPhase.QUEUED
    started_at: float | None = None
    pool: Pool | None = None
    tasks: list[Task] = field(default_factory=list)
    task_of: dict[TaskId, Task] = field(default_factory=dict)
    candidates: dict[CandidateId, Candidate] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    waiting: dict[str, Batch] = field(default_factory=dict)
    steps: dict[tuple[Any, ...], Step] = field(default_factory=dict)
    ready: list[tuple[int, int, tuple[Any, ...]]] = field(default_factory=list)
    windows: dict[DeviceId, Window] = field(default_factory=dict)
    spent: int = 0
    reserved: int = 0
    failed_trials: int = 0
    compute_share: float = 0.0
    device_share: float = 0.0
    since: int = 0
    selectable_since: int = 0
    out_of_time: bool = False
    mark_s: float = inf
    quiet: int = 0
    stopped: str = ""
    untuned: Measured | None = None
    tuned: Measured | None = None
    bundle: ModelCompiled | None = None
    delivered: BundleDelivered | None = None
    failure: Failure | None = None
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def remaining(self) -> int:
        """Trials that may still be selected."""
        return self.order.trials - self.spent - self.reserved

    @property
    def place(self) -> Pool:
        """The devices that this job may use; a job that has started has them."""
        assert self.pool is not None, "a job has devices from its start"
        return self.pool

    def weight(self, now: float, *, urgent: bool) -> float:
        """Return the job's share against others'; with `urgent` it grows as the time budget runs out."""
        weight: float = 2.0 ** ((self.order.priority - 5) / 2)
        if urgent and self.order.time_s is not None and self.started_at is not None:
            passed = min(1.0, (now - self.started_at) / self.order.time_s)
            weight *= 1.0 + _URGENCY * passed
        return weight

    def estimate(self) -> float | None:
        """Return the model's latency (s) as the sum of its operators' best, once all have one."""
        total = 0.0
        for task in self.tasks:
            if task.best is None:
                return None
            total += task.found.weight * task.best
        return total if self.tasks else None

    def objective_met(self) -> bool:
        """Return whether the estimate is as good as what the user asked for."""
        if self.order.objective_s is None:
            return False
        estimate = self.estimate()
        return estimate is not None and estimate <= self.order.objective_s

    def rounds(self) -> list[Batch]:
        """Return the rounds of tasks that are not complete."""
        return [batch for batch in self.batches.values() if not batch.model]

    def model_under_way(self, *, tuned: bool) -> bool:
        """Return whether the untuned or tuned model is still to be compiled or measured."""
        return model_id(self.id, tuned=tuned) in self.batches

    def add_step(self, step: Step) -> None:
        """Have a step wait for a compute slot."""
        self.steps[step.key] = step
        if step.kind == "build" and step.candidate is not None:
            step.candidate.batch.to_build.append(step)
        else:
            heapq.heappush(self.ready, (ORDER[step.kind], step.seq, step.key))

    def put_back(self, step: Step) -> None:
        """Have a step that was under way asked for again, before others of its kind."""
        step.running = False
        if step.kind == "build" and step.candidate is not None:
            step.candidate.batch.to_build.appendleft(step)
        else:
            heapq.heappush(self.ready, (ORDER[step.kind], step.seq, step.key))
