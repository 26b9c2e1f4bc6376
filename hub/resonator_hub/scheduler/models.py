"""A job's whole model: compiled, measured in a window of its own, delivered."""

from __future__ import annotations

from resonator.failures import Failure, FailureKind
from resonator.ids import model_id
from resonator_hub.scheduler.batch import Batch
from resonator_hub.scheduler.candidate import Candidate
from resonator_hub.scheduler.commands import Compile, Deliver
from resonator_hub.scheduler.desk import Desk
from resonator_hub.scheduler.events import Measured, ModelCompiled
from resonator_hub.scheduler.job import Job
from resonator_hub.scheduler.step import Step
from resonator_hub.scheduler.transitions import CandidateState, Cue, RoundState
from resonator_hub.scheduler.windows import Windows


class Models:
    """Has the untuned and the tuned model compiled and measured, and judges them."""

    def __init__(self, desk: Desk, windows: Windows) -> None:
        self._desk = desk
        self._windows = windows

    def compile(self, job: Job, *, tuned: bool, settles: bool = False) -> None:
        """Have the whole model compiled, with the best records or with none."""
        candidate = self._candidate(job, tuned=tuned)
        which = "tuned" if tuned else "untuned"
        command = Compile(job.id, tuned, job.place.offer.target, job.place.hardware, settles)
        key = ("compile", job.id, tuned)
        doing = f"compile {which} model"
        job.add_step(Step(key, "compile", job.id, self._desk.next_seq(), command, doing, candidate))

    def bench(self, job: Job, bundle: str) -> None:
        """Have a bundle measured that was compiled elsewhere; its size is the shell's to know."""
        candidate = self._candidate(job, tuned=True)
        candidate.state = CandidateState.BUILDING
        self._windows.built(candidate, bundle, 0, ModelCompiled)

    def compiled(self, job: Job, candidate: Candidate, event: ModelCompiled) -> None:
        """A whole model is ready to be measured."""
        if event.tuned:
            job.bundle = event
            self._desk.move_job(job, Cue.COMPILED)
        self._windows.built(candidate, event.bundle, event.size, ModelCompiled)

    def measured(self, job: Job, candidate: Candidate, event: Measured | None) -> None:
        """A whole model has its result, or none in all its attempts; a wrong answer ends the job.

        A baseline that crashes or takes too long is done without; a tuned model is not.
        """
        tuned = candidate.id == model_id(job.id, tuned=True)
        failure = self._judge(event, tuned=tuned) if event else candidate.failure or self._unmeasured()
        if tuned:
            job.tuned = event
        elif failure is None:
            job.untuned = event
        if failure is not None and (tuned or failure.kind is FailureKind.WRONG_OUTPUT):
            job.failure = failure
            self._desk.move_job(job, Cue.FAILED)

    def deliver(self, job: Job, tuned: Measured) -> None:
        """Have the bundle packed with the evidence of its speed."""
        assert job.bundle is not None, "a verified model was compiled"
        command = Deliver(job.id, job.bundle.bundle, job.untuned, tuned, job.spent)
        job.add_step(
            Step(("deliver", job.id), "deliver", job.id, self._desk.next_seq(), command, "pack bundle")
        )

    def _candidate(self, job: Job, *, tuned: bool) -> Candidate:
        name = model_id(job.id, tuned=tuned)
        batch = Batch(name, job, None, int(tuned), self._desk.next_seq(), 1)
        batch.state, batch.building = RoundState.MEASURING, 1
        candidate = Candidate(name, batch)
        batch.live[candidate.id] = job.candidates[candidate.id] = candidate
        job.batches[batch.key] = batch
        return candidate

    def _judge(self, event: Measured, *, tuned: bool) -> Failure | None:
        accepted = self._desk.knobs.tolerance
        if event.error is None or event.error <= accepted:
            return event.failure
        return Failure(
            kind=FailureKind.WRONG_OUTPUT,
            detail=f"the {'tuned' if tuned else 'untuned'} model's outputs differ from the reference by "
            f"{event.error:.3g} (relative), accepted is {accepted:g}",
        )

    def _unmeasured(self) -> Failure:
        attempts = self._desk.knobs.model_attempts
        return Failure(
            kind=FailureKind.STAGE_FAILED, detail=f"the model could not be measured in {attempts} attempts"
        )
