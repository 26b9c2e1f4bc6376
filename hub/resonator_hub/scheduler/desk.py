"""All the scheduler knows at one moment, and the commands it is about to give."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from resonator.ids import JobId
from resonator_hub.scheduler.batch import Batch
from resonator_hub.scheduler.candidate import Candidate
from resonator_hub.scheduler.commands import Command
from resonator_hub.scheduler.compute import Compute
from resonator_hub.scheduler.device import Device
from resonator_hub.scheduler.ended import Ended
from resonator_hub.scheduler.estimates import Estimates
from resonator_hub.scheduler.fleet import Fleet
from resonator_hub.scheduler.job import Job
from resonator_hub.scheduler.knobs import Knobs
from resonator_hub.scheduler.policies import Policy
from resonator_hub.scheduler.story import Stories
from resonator_hub.scheduler.timers import Timers
from resonator_hub.scheduler.transitions import (
    CANDIDATE,
    DEVICE,
    JOB,
    ROUND,
    CandidateState,
    IllegalTransition,
    Input,
    State,
    Table,
    name_of,
)


@dataclass(eq=False)
class Desk:
    """The state that the parts of the scheduler share.

    `given_up` are candidates whose batch has yet to hear of it, `ignored` counts late and repeated events by
    reason, `running` are the jobs that have started, in that order, `delivered` those that made a bundle.
    """

    policy: Policy
    knobs: Knobs
    stories: Stories
    now: float = 0.0
    seq: int = 0
    jobs_seen: int = 0
    estimates: Estimates = field(default_factory=Estimates)
    timers: Timers = field(default_factory=Timers)
    fleet: Fleet = field(default_factory=Fleet)
    compute: Compute = field(default_factory=Compute)
    jobs: dict[JobId, Job] = field(default_factory=dict)
    running: dict[JobId, Job] = field(default_factory=dict)
    ended: Ended = field(default_factory=Ended)
    delivered: dict[str, tuple[JobId, ...]] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    given_up: deque[Candidate] = field(default_factory=deque)
    out: list[Command] = field(default_factory=list)
    changed: dict[JobId, bool] = field(default_factory=dict)

    def next_seq(self) -> int:
        """Return the next of the numbers that order what was ready first."""
        self.seq += 1
        return self.seq

    def ignore(self, reason: str) -> None:
        """Count an event that changes nothing."""
        self.ignored[reason] = self.ignored.get(reason, 0) + 1

    def report(self, job: JobId, *, ended: bool = False) -> None:
        """Have a job's new status told at the end of this step, once."""
        self.changed[job] = ended

    def move_job(self, job: Job, cause: Input) -> None:
        """Take a job to its next phase."""
        job.phase = self._move(JOB, job.id, job.phase, cause)
        self.report(job.id)

    def move_round(self, batch: Batch, cause: Input) -> None:
        """Take a round to its next state."""
        batch.state = self._move(ROUND, batch.key, batch.state, cause)

    def move_candidate(self, candidate: Candidate, cause: Input) -> None:
        """Take a candidate to its next state and keep its pool's count of ready kernels."""
        before = candidate.state
        candidate.state = after = self._move(CANDIDATE, candidate.id, before, cause)
        counted = (CandidateState.READY, CandidateState.PUSHED)
        pool = candidate.batch.job.place
        pool.kernels += (after in counted) - (before in counted)

    def move_device(self, device: Device, cause: Input) -> None:
        """Take a device to its next phase."""
        device.phase = self._move(DEVICE, device.id, device.phase, cause)

    def _move(self, table: Table[State], entity: str, state: State, cause: Input) -> State:
        after = table.get((state, cause))
        if after is None:
            raise self.illegal(entity, f"{name_of(cause)} when {state.value}")
        self.stories.tell(entity, self.now, name_of(cause), after.value)
        return after

    def illegal(self, entity: str, problem: str) -> IllegalTransition:
        """Make the exception that tells an entity's story."""
        return IllegalTransition(entity, problem, self.stories.of(entity))

    def charge_device(self, job: Job, seconds: float) -> None:
        """Count device-seconds against a job's share."""
        job.device_share += seconds / job.weight(self.now, urgent=self.policy.urgent)

    def charge_compute(self, job: Job, seconds: float) -> None:
        """Count compute-seconds against a job's share."""
        job.compute_share += seconds / job.weight(self.now, urgent=self.policy.urgent)

    def profile_s(self, job: Job) -> float:
        """Return the expected seconds on a device for one kernel of this job's hardware."""
        return self.estimates.of("profile", job.place.hardware)

    def device_rank(self, batch: Batch) -> tuple[Any, ...]:
        """Rank a batch that wants a device."""
        return self.policy.device_rank(batch.job, since=batch.seq, model=batch.model)
