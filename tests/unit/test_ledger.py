"""What a job costs is put down once, under its task and what became of it, and adds up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fakes.fleet import BLOB, BOX, JOB, Play
from resonator.failures import Failure, FailureKind
from resonator.ids import CandidateId, JobId, candidate_id, model_id, task_id
from resonator.messages import Cost, JobState
from resonator_hub.scheduler import commands as c
from resonator_hub.scheduler import events as e
from resonator_hub.scheduler.ledger import Ledger

TASK = task_id(JOB, 0)
BROKEN = Failure(kind=FailureKind.BUILD_ERROR)


def name(number: int) -> CandidateId:
    return candidate_id(TASK, number)


def begun(candidates: int) -> Ledger:
    """A ledger with so many candidates selected, for 2 s of processor time."""
    ledger = Ledger()
    found = tuple(e.CandidateFound(name(number), BLOB, BLOB) for number in range(candidates))
    ledger.answered(e.CandidatesSelected(0.0, JOB, TASK, 0, found, cpu_s=2.0), taken=True)
    return ledger


def built(number: int, cpu_s: float = 0.5) -> e.KernelBuilt:
    return e.KernelBuilt(0.0, JOB, name(number), BLOB, 1, cpu_s=cpu_s)


def measured(number: int, epoch: int = 1, **fields: object) -> e.Measured:
    event = e.Measured(0.0, BOX, epoch, JOB, name(number), (1e-3,), device_time_s=0.3)
    return replace(event, **fields)  # type: ignore[arg-type]


def of(ledger: Ledger) -> dict[str, Cost]:
    """The task's costs by outcome."""
    tasks, _ = ledger.costs()
    return {cost.outcome: cost for cost in tasks[TASK]}


def test_a_build_goes_with_what_becomes_of_its_kernel() -> None:
    # Given four kernels
    ledger = begun(4)
    for number in range(3):
        ledger.answered(built(number), taken=True)
    assert of(ledger)["under_way"] == Cost(outcome="under_way", trials=4, cpu_s=1.5)
    # When each meets another fate
    ledger.measured(measured(0), taken=True)
    ledger.measured(measured(1, raced=True), taken=True)
    crash = Failure(kind=FailureKind.KERNEL_CRASH)
    ledger.measured(measured(2, latencies=(), failure=crash), taken=True)
    ledger.answered(e.BuildFailed(0.0, JOB, name(3), BROKEN, cpu_s=0.25), taken=True)
    # Then
    assert of(ledger) == {
        "search": Cost(outcome="search", cpu_s=2.0),
        "measured": Cost(outcome="measured", trials=1, device_s=0.3, cpu_s=0.5),
        "raced": Cost(outcome="raced", trials=1, device_s=0.3, cpu_s=0.5),
        "failed": Cost(outcome="failed", trials=1, device_s=0.3, cpu_s=0.5),
        "build_failed": Cost(outcome="build_failed", trials=1, cpu_s=0.25),
    }


@pytest.mark.parametrize(
    "spoilt",
    [
        {"failure": Failure(kind=FailureKind.DEVICE_DIRTY), "latencies": ()},
        {"latencies": ()},
    ],
    ids=["disturbed", "neither timings nor failure"],
)
def test_a_measurement_without_a_result_is_discarded_while_the_kernel_goes_on(
    spoilt: dict[str, object],
) -> None:
    ledger = begun(1)
    ledger.answered(built(0), taken=True)
    ledger.measured(measured(0, **spoilt), taken=True)
    assert of(ledger)["discarded"] == Cost(outcome="discarded", device_s=0.3)
    assert of(ledger)["under_way"].trials == 1
    ledger.measured(measured(0, epoch=2), taken=True)
    assert of(ledger)["measured"] == Cost(outcome="measured", trials=1, device_s=0.3, cpu_s=0.5)
    assert "under_way" not in of(ledger)


def test_a_result_that_comes_twice_is_paid_once_but_a_second_measurement_is_paid() -> None:
    ledger = begun(1)
    ledger.measured(measured(0), taken=True)
    ledger.measured(measured(0), taken=False)
    assert "discarded" not in of(ledger)
    ledger.measured(measured(0, epoch=2), taken=False)
    assert of(ledger)["discarded"] == Cost(outcome="discarded", device_s=0.3)


def test_what_is_given_up_is_discarded_and_a_late_build_with_it() -> None:
    ledger = begun(3)
    ledger.answered(built(0), taken=True)
    ledger.dropped(name(0))
    ledger.dropped(name(1))
    ledger.answered(built(1), taken=False)
    ledger.finish()
    assert of(ledger)["discarded"] == Cost(outcome="discarded", trials=3, cpu_s=1.0)


def test_joules_are_added_where_they_are_known() -> None:
    ledger = begun(3)
    ledger.measured(measured(0, joules=2.0), taken=True)
    ledger.measured(measured(1), taken=True)
    ledger.measured(measured(2, joules=0.5), taken=True)
    assert of(ledger)["measured"].joules == 2.5
    assert of(ledger)["search"].joules is None


def test_the_whole_model_belongs_to_no_task_and_failed_steps_are_paid_too() -> None:
    ledger = begun(1)
    ledger.answered(e.TasksExtracted(0.0, JOB, (), cpu_s=3.0), taken=True)
    ledger.answered(e.StageFailed(0.0, JOB, "compile", BROKEN, tuned=True, cpu_s=4.0), taken=True)
    ledger.answered(e.StageFailed(0.0, JOB, "update", BROKEN, TASK, 0, cpu_s=1.0), taken=True)
    ledger.answered(e.ModelUpdated(0.0, JOB, TASK, 1, cpu_s=0.5), taken=True)
    model = model_id(JOB, tuned=True)
    ledger.measured(measured(0, candidate=model, joules=9.0), taken=True)
    tasks, total = ledger.costs()
    assert of(ledger)["search"].cpu_s == 3.5
    assert list(tasks) == [TASK]
    assert total[-1] == Cost(outcome="model", device_s=0.3, cpu_s=7.0, joules=9.0)


def test_a_jobs_status_tells_its_costs_and_they_outlive_it() -> None:
    # Given a job whose first kernel is measured, whose second is on its device
    play = Play()
    play.box()
    first, second, *_ = play.tuning(trials=4)
    play.feed(play.result(first, joules=1.5))
    (task,) = play.status().tasks
    assert {cost.outcome: cost.trials for cost in task.costs} == {
        "measured": 1,
        "under_way": 3,
        "search": 0,
    }
    # When it is canceled
    play.feed(e.JobCanceled(play.now, JOB))
    # Then nothing is under way any more, and the job's costs are those of its task
    status = play.status()
    assert status.state is JobState.CANCELED
    outcomes = {cost.outcome: cost for cost in status.costs}
    assert outcomes["measured"] == Cost(outcome="measured", trials=1, device_s=0.2, joules=1.5)
    assert outcomes["discarded"].trials == 3
    assert sum(cost.trials for cost in status.costs) == status.trials
    # And what comes late for a job that has ended changes nothing
    play.feed(play.result(second))
    assert play.status() == status
    assert play.take(c.Record)


def test_two_jobs_keep_books_of_their_own() -> None:
    play = Play()
    play.box()
    for job in (JobId("one"), JobId("two")):
        play.submit(job)
    extract, *_ = play.take(c.Extract)
    play.feed(
        e.TasksExtracted(
            play.now, extract.job, (e.TaskFound(task_id(extract.job, 0), "op", BLOB, 1),), cpu_s=1.0
        )
    )
    (model,) = play.status(JobId("one")).costs
    assert (model.outcome, model.cpu_s) == ("model", 1.0)
    assert play.status(JobId("two")).costs == ()
