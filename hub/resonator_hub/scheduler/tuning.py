"""A job's way: extract, then rounds and the baseline side by side, then the tuned model and its delivery."""

from __future__ import annotations

from math import ceil
from zlib import crc32

from resonator.ids import CandidateId, candidate_id
from resonator_hub.scheduler.batch import Batch
from resonator_hub.scheduler.candidate import Candidate
from resonator_hub.scheduler.commands import Build, Extract, Record, Select, Update
from resonator_hub.scheduler.desk import Desk
from resonator_hub.scheduler.events import (
    CandidatesSelected,
    Measured,
    ModelUpdated,
    TasksExtracted,
)
from resonator_hub.scheduler.fleet import Pool
from resonator_hub.scheduler.job import Job
from resonator_hub.scheduler.measurement import median
from resonator_hub.scheduler.models import Models
from resonator_hub.scheduler.step import Step
from resonator_hub.scheduler.task import Task, most_promising
from resonator_hub.scheduler.transitions import CandidateState, Cue, Input, JobPhase, RoundState
from resonator_hub.scheduler.windows import Windows


class Tuning:
    """Takes jobs from phase to phase and makes the steps they need."""

    def __init__(self, desk: Desk, windows: Windows, models: Models) -> None:
        self._desk = desk
        self._windows = windows
        self._models = models

    # --- the beginning --------------------------------------------------------------------------------

    def start(self, job: Job, pool: Pool) -> None:
        """A device matches: the job leaves the queue."""
        desk = self._desk
        job.pool, job.started_at = pool, desk.now
        if desk.policy.levels:
            job.device_share, job.compute_share = pool.device_clock, pool.compute_clock
        desk.running[job.id] = job
        if job.order.time_s is not None:
            desk.timers.at(desk.now + job.order.time_s, "job", job.id)
        if job.order.bundle is not None:
            desk.move_job(job, Cue.BENCHED)
            self._models.bench(job, job.order.bundle)
        else:
            desk.move_job(job, Cue.STARTED)
            job.add_step(
                Step(
                    ("extract", job.id),
                    "extract",
                    job.id,
                    desk.next_seq(),
                    Extract(job.id, pool.offer.target, pool.hardware),
                    "extract tasks",
                ),
            )

    def extracted(self, job: Job, event: TasksExtracted) -> None:
        """The model's operators are known: compile the baseline and begin to search, unless all is known."""
        for index, found in enumerate(event.tasks):
            task = Task(found, index, found.known_s, exhausted=found.settled)
            job.tasks.append(task)
            job.task_of[found.task] = task
        self._desk.move_job(job, TasksExtracted)
        known = all(found.settled for found in event.tasks) and bool(event.tasks)
        if known or job.objective_met():
            tried, met = "earlier jobs have tried as much", "the records already meet the objective"
            job.stopped = tried if known else met
            self._desk.move_job(job, Cue.SPENT)
            self._models.compile(job, tuned=True)
            return
        self._models.compile(job, tuned=False)
        if job.out_of_time:
            self._stop(job)

    # --- rounds ---------------------------------------------------------------------------------------

    def selection(self, job: Job, *, speculate: bool) -> Step | None:
        """Make the step that selects the next round, and reserve its trials; None if no task is left."""
        desk = self._desk
        task = most_promising(job.tasks, desk.knobs, speculate=speculate)
        if task is None:
            return None
        count = min(self._round_size(job, task), job.remaining)
        batch = Batch(
            f"{task.id}/r{task.rounds}",
            job,
            task,
            task.rounds,
            desk.next_seq(),
            count,
            first=task.next_candidate,
            best_before=task.best,
        )
        job.batches[batch.key] = batch
        job.reserved += count
        task.rounds += 1
        task.next_candidate += count
        task.under_way += 1
        exclude = tuple(
            one.trace for other in job.rounds() if other.task is task for one in other.live.values()
        )
        command = Select(
            job.id,
            task.id,
            batch.number,
            task.found.workload,
            job.place.offer.target,
            job.place.hardware,
            count,
            batch.first,
            crc32(f"{job.order.seed}/{task.index}/{batch.number}".encode()),
            exclude,
        )
        step = Step(
            ("select", task.id, batch.number),
            "select",
            job.id,
            batch.seq,
            command,
            f"select for {task.found.name} (t{task.index})",
        )
        job.steps[step.key] = step
        return step

    def _round_size(self, job: Job, task: Task) -> int:
        knobs = self._desk.knobs
        if not task.rounds:
            return max(knobs.least_batch, min(knobs.batch, self._first_share(job, task)))
        most = max(knobs.batch, min(knobs.batch * knobs.stretch, task.trials // 2))
        least = max(knobs.least_batch, knobs.batch // knobs.stretch)
        return max(least, min(most, self._worthwhile_round(job)))

    def _first_share(self, job: Job, task: Task) -> int:
        """Share half of the trials among first rounds by work: a light task is soon known well enough."""
        work = sum(one.work for one in job.tasks)
        share = task.work / work if work else 1 / len(job.tasks)
        return int(share * job.order.trials / 2)

    def _worthwhile_round(self, job: Job) -> int:
        """Return how many candidates make a selection worth its time."""
        estimates, share = self._desk.estimates, self._desk.knobs.search_share
        search_s = estimates.of("select") + estimates.of("update")
        trial_s = estimates.of("build") + self._desk.profile_s(job)
        return ceil(search_s * (1 - share) / (share * trial_s))

    def selected(self, batch: Batch, event: CandidatesSelected) -> None:
        """A round's candidates are known: have them built."""
        job, task = batch.job, batch.task
        assert task is not None, "a whole model is not selected"
        job.reserved -= batch.count
        if not event.candidates:
            task.exhausted = True
            self._complete(batch, Cue.DROPPED)
            return
        job.spent += len(event.candidates)
        task.trials += len(event.candidates)
        self._desk.move_round(batch, CandidatesSelected)
        batch.count = batch.building = len(event.candidates)
        for found in event.candidates:
            candidate = Candidate(found.candidate, batch, found.trace, found.features)
            batch.live[candidate.id] = job.candidates[candidate.id] = candidate
            command = Build(job.id, candidate.id, task.found.workload, found.trace, job.place.offer.target)
            step = Step(
                ("build", candidate.id),
                "build",
                job.id,
                self._desk.next_seq(),
                command,
                f"build {task.found.name} (t{task.index})",
                candidate,
            )
            job.add_step(step)

    def select_failed(self, batch: Batch) -> None:
        """A task's search cannot go on; the job can."""
        assert batch.task is not None, "a whole model is not selected"
        batch.job.reserved -= batch.count
        batch.task.exhausted = True
        self._complete(batch, Cue.DROPPED)

    def updated(self, batch: Batch) -> None:
        """The cost model has learnt a round, or could not; either way the round is complete."""
        self._complete(batch, ModelUpdated)

    def _complete(self, batch: Batch, cause: Input) -> None:
        assert batch.task is not None, "a whole model has no rounds"
        self._desk.move_round(batch, cause)
        self._windows.finish_batch(batch)
        batch.task.under_way -= 1
        del batch.job.batches[batch.key]

    # --- outcomes -------------------------------------------------------------------------------------

    def build_failed(self, candidate: Candidate) -> None:
        """A candidate without a kernel is a failed trial."""
        candidate.batch.building -= 1
        self._count_failed(candidate)
        self._settle(candidate)
        self._windows.demand(candidate.batch)

    def measured(self, candidate: Candidate, event: Measured) -> None:
        """A result is taken: keep it, and learn the task's best."""
        batch, job = candidate.batch, candidate.batch.job
        task = batch.task
        if task is None:
            self._settle(candidate)
            self._models.measured(job, candidate, event)
            return
        if event.failure is not None:
            self._count_failed(candidate)
        elif not event.raced:
            latency = median(event.latencies)
            task.best = latency if task.best is None else min(task.best, latency)
        batch.records += 1
        self._desk.out.append(
            Record(
                event,
                task.id,
                task.found.workload,
                job.place.offer.target,
                job.place.hardware,
                candidate.trace,
                candidate.features,
            )
        )
        self._settle(candidate)

    def give_up(self, candidate: Candidate) -> None:
        """A kernel could not be measured often enough, or is not wanted any more: no record, no lesson."""
        if candidate.state is CandidateState.GONE:
            return
        self._desk.move_candidate(candidate, Cue.DROPPED)
        candidate.batch.job.ledger.dropped(candidate.id)
        self._settle(candidate)
        if candidate.batch.model:
            self._models.measured(candidate.batch.job, candidate, None)

    def _count_failed(self, candidate: Candidate) -> None:
        candidate.batch.job.failed_trials += 1
        if candidate.batch.task is not None:
            candidate.batch.task.failed += 1

    def _settle(self, candidate: Candidate) -> None:
        batch, job = candidate.batch, candidate.batch.job
        batch.forget(candidate)
        job.candidates.pop(candidate.id, None)
        if batch.live:
            return
        if batch.task is None:
            self._windows.finish_batch(batch)
            del job.batches[batch.key]
        else:
            self._close_round(batch, batch.task)

    def _close_round(self, batch: Batch, task: Task) -> None:
        self._learn(batch, task)
        if not batch.records:
            self._complete(batch, Cue.DROPPED)
            return
        self._desk.move_round(batch, Cue.SETTLED)
        self._windows.finish_batch(batch)
        job = batch.job
        command = Update(
            job.id, task.id, batch.number, task.found.workload, job.place.offer.target, job.place.hardware
        )
        job.add_step(
            Step(
                ("update", task.id, batch.number),
                "update",
                job.id,
                self._desk.next_seq(),
                command,
                f"update cost model (t{task.index})",
            ),
        )

    def _learn(self, batch: Batch, task: Task) -> None:
        job, knobs, before = batch.job, self._desk.knobs, batch.best_before
        task.learn(before, batch.count, knobs)
        for other in job.rounds():
            if other.task is task:
                other.best_before = task.best  # what this round gained is not the other's merit
        seconds = sum(one.seconds for one in job.tasks)
        first = before is None and task.best is not None
        if first or seconds <= job.mark_s * (1.0 - knobs.least_gain):
            job.mark_s, job.quiet = seconds, 0
        else:
            job.quiet += batch.count

    # --- the end --------------------------------------------------------------------------------------

    def _stop(self, job: Job) -> None:
        """Enough: wait for what is on a device, drop what is not."""
        job.stopped = "the time of its budget is used" if job.out_of_time else "the objective is met"
        self._desk.move_job(job, Cue.STOPPED)
        for batch in job.rounds():
            if batch.state is RoundState.SELECTING:
                job.reserved -= batch.count
                job.steps.pop(("select", batch.task.id if batch.task else "", batch.number), None)
                self._complete(batch, Cue.DROPPED)
                continue
            batch.to_build.clear()
            for candidate in list(batch.live.values()):
                job.steps.pop(("build", candidate.id), None)
                if candidate.state is not CandidateState.PUSHED:
                    self.give_up(candidate)

    def advance(self, job: Job) -> None:
        """Take a job further when nothing holds it where it is."""
        desk = self._desk
        if job.phase is JobPhase.TUNING and (job.out_of_time or job.objective_met()):
            self._stop(job)
        under_way = any(batch.is_open for batch in job.rounds())
        if job.phase is JobPhase.TUNING and not under_way and not self.has_hope(job):
            job.stopped = self._why_hopeless(job)
            desk.move_job(job, Cue.SPENT)
            self._models.compile(job, tuned=True, settles=True)
        elif job.phase is JobPhase.DRAINING and not under_way:
            desk.move_job(job, Cue.DRAINED)
            self._models.compile(job, tuned=True)
        elif job.phase is JobPhase.VERIFYING and job.tuned and not job.model_under_way(tuned=False):
            desk.move_job(job, Cue.VERIFIED)
            self._models.deliver(job, job.tuned)
        elif job.phase is JobPhase.BENCHING and job.tuned:
            desk.move_job(job, Cue.VERIFIED)

    def has_hope(self, job: Job) -> bool:
        """Return whether there are trials left, tasks that can have them, and a gain to be expected."""
        return not self._why_hopeless(job)

    def _why_hopeless(self, job: Job) -> str:
        knobs = self._desk.knobs
        if job.remaining <= 0:
            return "the trials of its budget are used"
        if job.quiet >= max(knobs.quiet_rounds * knobs.batch, job.spent / 2):
            return f"the last {job.quiet} trials gained less than {knobs.least_gain:.0%}"
        if all(task.exhausted for task in job.tasks):
            return "no task has a candidate left to try"
        return ""


def numbered(batch: Batch, event: CandidatesSelected) -> bool:
    """Return whether an answer has no more candidates than asked for, numbered as asked for."""
    wanted: list[CandidateId] = [
        candidate_id(event.task, batch.first + index) for index in range(len(event.candidates))
    ]
    return len(wanted) <= batch.count and [found.candidate for found in event.candidates] == wanted
