"""Which step each free compute slot takes next."""

from __future__ import annotations

import heapq
from math import ceil

from resonator_hub.scheduler.batch import Batch
from resonator_hub.scheduler.desk import Desk
from resonator_hub.scheduler.job import Job
from resonator_hub.scheduler.policies import Ahead
from resonator_hub.scheduler.step import ORDER, Step
from resonator_hub.scheduler.transitions import Cue, JobPhase, RoundState
from resonator_hub.scheduler.tuning import Tuning


class Dispatch:
    """Keeps the jobs that have a step ready in order, and starts their steps as slots come free."""

    def __init__(self, desk: Desk, tuning: Tuning) -> None:
        self._desk = desk
        self._tuning = tuning

    def touch(self, job: Job) -> None:
        """Put a job in its place among those that wait for a slot, after anything that may have moved it."""
        desk = self._desk
        waiting = [step.seq for step in (self._peek(job), self._peek_build(job)) if step is not None]
        if waiting:
            job.since = min(waiting)
        elif self._may_select(job):
            job.selectable_since = job.selectable_since or desk.next_seq()
            job.since = job.selectable_since
        else:
            self.withdraw(job)
            return
        pool = job.place
        desk.compute.queue(
            desk.policy.group(pool.number),
            desk.policy.group_rank(pool.queue_s(desk.profile_s(job))),
            desk.policy.compute_rank(job, feeds=bool(waiting)),
            job,
        )

    def withdraw(self, job: Job) -> None:
        """A job has nothing for a slot to do."""
        if job.pool is not None:
            self._desk.compute.withdraw(self._desk.policy.group(job.pool.number), job)

    def fill(self) -> None:
        """Start steps while there are free slots and jobs that have one ready."""
        compute = self._desk.compute
        while compute.has_free_slot and (job := compute.next_job()) is not None:
            step = self._take(job)
            if step is not None:
                self._start(job, step)
            self.touch(job)

    def learn(self, job: Job, step: Step, took_s: float) -> None:
        """Take in how long a step took."""
        self._desk.estimates.observe(step.kind, took_s)
        self._desk.charge_compute(job, took_s - step.charged_s)

    def _start(self, job: Job, step: Step) -> None:
        desk = self._desk
        desk.compute.occupy(step)
        step.asked, step.started_at, step.charged_s = True, desk.now, desk.estimates.of(step.kind)
        job.place.compute_clock = max(job.place.compute_clock, job.compute_share)
        desk.charge_compute(job, step.charged_s)
        if step.candidate is not None:
            desk.move_candidate(step.candidate, Cue.ASKED)
        desk.out.append(step.command)
        desk.report(job.id)

    def _take(self, job: Job) -> Step | None:
        step, build = self._peek(job), self._peek_build(job)
        if build is not None and (step is None or ORDER[step.kind] > ORDER["build"]):
            assert build.candidate is not None, "a build has its candidate"
            return build.candidate.batch.to_build.popleft()
        if step is not None:
            heapq.heappop(job.ready)
            return step
        if self._may_select(job):
            job.selectable_since = 0
            return self._tuning.selection(job, speculate=self._desk.policy.may_speculate(self._ahead(job)))
        return None

    def _peek(self, job: Job) -> Step | None:
        while job.ready:
            step = job.steps.get(job.ready[0][2])
            if step is not None and not step.running:
                return step
            heapq.heappop(job.ready)
        return None

    def _peek_build(self, job: Job) -> Step | None:
        waiting = [batch for batch in job.batches.values() if batch.to_build]
        if not waiting:
            return None
        return min(waiting, key=_hunger).to_build[0]

    def _may_select(self, job: Job) -> bool:
        if job.phase is not JobPhase.TUNING or not self._tuning.has_hope(job):
            return False
        ahead = self._ahead(job)
        if self._desk.policy.may_speculate(ahead):
            return True
        return self._desk.policy.may_select(ahead) and any(
            not task.under_way and not task.exhausted for task in job.tasks
        )

    def _ahead(self, job: Job) -> Ahead:
        desk = self._desk
        rounds = job.rounds()
        pool, slots = job.place, max(1, len(desk.compute.slots))
        # A job takes to more devices step by step: each round selected at the same time is one less informed.
        devices = len(job.windows) + min(len(pool.idle), len(job.windows)) or 1
        learning = sum(batch.state is RoundState.LEARNING for batch in rounds)
        kernels = sum(
            batch.count if batch.state is RoundState.SELECTING else len(batch.live) for batch in rounds
        )
        profile_s = desk.profile_s(job)
        seconds = desk.estimates.of
        lead_s = seconds("update") + seconds("select") + seconds("build") * desk.knobs.batch / slots
        most = desk.knobs.rounds_ahead * devices
        if desk.estimates.knows("profile", pool.hardware):
            # So many rounds feed a device without a break, if there are slots to select them side by side.
            unbroken = 1 + ceil(lead_s / (desk.knobs.batch * profile_s))
            most = max(most, min(unbroken * devices, devices + slots))
        return Ahead(
            rounds=len(rounds) - learning,
            learning=learning,
            models=len(job.batches) - len(rounds),
            work_s=max(kernels * profile_s / devices, pool.queue_s(profile_s)),
            lead_s=lead_s,
            most=most,
        )


def _hunger(batch: Batch) -> tuple[int, int]:
    """Rank batches by the kernels that their device has ready, then by age."""
    window = batch.device.window if batch.device else None
    return (len(window.outstanding) if window else 0) + len(batch.ready), batch.seq
