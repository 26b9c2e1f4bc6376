"""The scheduler's rules, one by one: jobs and their stages."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.fleet import BLOB, BOX, JOB, Play
from resonator.failures import Failure, FailureKind
from resonator.ids import CandidateId, DeviceId, JobId, model_id, task_id
from resonator.jobspec import Measure, TargetSpec
from resonator.messages import JobState
from resonator_hub.scheduler import IllegalTransition, Knobs, Scheduler
from resonator_hub.scheduler import commands as c
from resonator_hub.scheduler import events as e

BROKEN = Failure(kind=FailureKind.STAGE_FAILED, detail="no")


def measure_model(play: Play, *, tuned: bool, **result: object) -> None:
    """Compile a model that was asked for, and measure it in a window of its own."""
    (compile_,) = [one for one in play.take(c.Compile) if one.tuned is tuned]
    play.compile(compile_)
    for close in play.take(c.CloseWindow):
        play.closed(close.device, close.epoch)
    (window,) = play.take(c.OpenWindow)
    play.open(window)
    (pushed,) = play.take(c.Profile)
    assert pushed.model
    assert pushed.candidate == model_id(pushed.job, tuned=tuned)
    play.feed(play.result(pushed, **result))  # type: ignore[arg-type]
    (close,) = play.take(c.CloseWindow)
    play.closed(close.device, close.epoch)


def test_an_unknown_policy_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'random' is none of sequential, greedy, fair, load_aware"):
        Scheduler("random")


def test_a_job_waits_for_a_device_and_says_so() -> None:
    # Given no device
    play = Play()
    # When
    play.submit()
    # Then
    assert play.status().state is JobState.QUEUED
    assert play.status().waiting_for == "a device that offers kind cpu"
    # When one comes
    play.box()
    # Then
    (extract,) = play.take(c.Extract)
    assert (extract.job, extract.target) == (JOB, "{}")
    assert extract.hardware.startswith("cpu x ")
    assert play.status().state is JobState.RUNNING


def test_an_objection_lists_what_the_fleet_has_but_an_empty_fleet_has_none() -> None:
    play = Play()
    order = e.JobOrder("n", TargetSpec(labels={"model": "el900"}), 8, Measure())
    assert play.scheduler.objection(order) is None
    play.box()
    refusal = play.scheduler.objection(order)
    assert refusal is not None
    assert refusal.kind is FailureKind.NO_MATCHING_DEVICE
    assert refusal.detail == (
        "no device offers label model=el900; the fleet has device a (1), kind cpu (1), label model=el300 (1)"
    )
    assert play.scheduler.objection(e.JobOrder("n", TargetSpec(device="a"), 8, Measure())) is None


def test_a_job_goes_all_the_way() -> None:
    # Given a job of four trials on one box
    play = Play()
    play.box()
    play.submit(trials=4)
    play.extract()
    # When the baseline is measured
    measure_model(play, tuned=False, latency=9e-3, error=1e-7)
    # And the only round is selected, built and measured
    (select,) = play.take(c.Select)
    names = play.select(select)
    for build in play.take(c.Build):
        play.build(build)
    (window,) = play.take(c.OpenWindow)
    play.open(window)
    pushed = play.take(c.Profile)
    assert [one.candidate for one in pushed] == names
    for number, one in enumerate(pushed):
        play.feed(play.result(one, 1e-3 * (number + 1)))
    assert [one.result.candidate for one in play.take(c.Record)] == names
    assert play.status().stopped == "the trials of its budget are used"
    # Then the cost model is taught and the tuned model compiled
    assert len(play.take(c.Update)) == 1
    measure_model(play, tuned=True, latency=1e-3, error=1e-7)
    (deliver,) = play.take(c.Deliver)
    assert (deliver.bundle, deliver.trials) == (BLOB, 4)
    play.feed(e.BundleDelivered(play.now, JOB, BLOB, 5, 0.1))
    # And the job ends
    status = play.status()
    assert status.state is JobState.SUCCEEDED
    assert (status.trials, status.estimate) == (4, 1e-3)
    assert status.untuned is not None
    assert status.untuned.median == 9e-3
    assert status.tuned is not None
    assert status.tuned.median == 1e-3
    assert play.take(c.Report)[-1] == c.Report(JOB, ended=True)


def test_known_records_that_meet_the_objective_cost_no_trial() -> None:
    play = Play()
    play.box()
    play.submit(objective_s=3e-3)
    play.extract(tasks=2, known_s=1e-3)
    assert play.take(c.Select) == []
    assert [one.tuned for one in play.take(c.Compile)] == [True]
    assert play.status().stopped == "the records already meet the objective"


def test_tasks_that_earlier_jobs_have_settled_cost_no_trial_and_others_get_all() -> None:
    play = Play()
    play.box()
    play.submit()
    play.extract(tasks=2, known_s=1e-3, settled=(0, 1))
    assert play.take(c.Select) == []
    assert [(one.tuned, one.settles) for one in play.take(c.Compile)] == [(True, False)]
    assert play.status().stopped == "earlier jobs have tried as much"
    # Given a job of which one task is new
    play.submit(JobId("other"), trials=8)
    play.extract(JobId("other"), tasks=2, known_s=1e-3, settled=(0,))
    # Then all trials are for that one
    assert {one.task for one in play.take(c.Select)} == {task_id(JobId("other"), 1)}


def test_a_measured_objective_stops_the_search() -> None:
    # Given kernels on the box, more to come
    play = Play(slots=40)
    play.box()
    pushed = play.tuning(trials=100, objective_s=2e-3)
    # When one is good enough
    play.feed(play.result(pushed[0], 1e-3))
    # Then what is on the device is awaited
    assert play.status().phase == "finishing what is on a device"
    for one in pushed[1:]:
        play.feed(play.result(one, 5e-3))
    assert [one.tuned for one in play.take(c.Compile)] == [False, True]
    assert play.status().stopped == "the objective is met"


def test_a_bench_job_only_has_its_bundle_measured() -> None:
    play = Play()
    play.box()
    play.submit(bundle=BLOB)
    (window,) = play.take(c.OpenWindow)
    play.open(window)
    (pushed,) = play.take(c.Profile)
    assert (pushed.blob, pushed.model) == (BLOB, True)
    play.feed(play.result(pushed, 4e-3))
    assert play.status().state is JobState.SUCCEEDED
    assert play.status().tuned is not None
    assert play.take(c.Deliver) == []


def test_the_first_rounds_go_to_every_task_heaviest_first_in_batches_by_their_work() -> None:
    play = Play(knobs=Knobs(rounds_ahead=3))
    play.box()
    play.submit(trials=60)
    play.extract(tasks=3)
    selections = play.take(c.Select)
    assert [(one.task, one.count) for one in selections] == [
        (task_id(JOB, number), count) for number, count in ((2, 15), (1, 10), (0, 5))
    ]
    assert len({one.seed for one in selections}) == 3


def test_trials_never_exceed_the_budget_and_return_when_fewer_are_proposed() -> None:
    play = Play(knobs=Knobs(rounds_ahead=1))
    play.box()
    play.submit(trials=5)
    play.extract()
    (first,) = play.take(c.Select)
    assert first.count == 4
    play.select(first, count=2)
    assert play.status().trials == 2
    play.feed(play.result(c.Profile(BOX, 1, JOB, CandidateId("job/t0/c0"), BLOB, 1)))
    assert play.scheduler.ignored == {"a result nobody asked for": 1}


def test_a_selection_that_fails_or_proposes_nothing_exhausts_its_task() -> None:
    play = Play()
    play.box()
    play.submit(trials=50)
    play.extract(tasks=2)
    first, second = play.take(c.Select)
    play.select(first, count=0)
    play.feed(e.StageFailed(play.now, JOB, "select", BROKEN, second.task, second.round))
    for ahead in play.take(c.Select):
        play.select(ahead, count=0)
    assert {task.state for task in play.status().tasks} == {"exhausted"}
    assert [one.tuned for one in play.take(c.Compile)] == [False, True]


@pytest.mark.parametrize("stage", ["extract", "compile"])
def test_extract_and_compile_failures_end_the_job(stage: e.Stage) -> None:
    play = Play()
    play.box()
    play.submit()
    if stage == "compile":
        play.extract()
    play.feed(e.StageFailed(play.now, JOB, stage, BROKEN, tuned=False))
    assert play.status().state is JobState.FAILED
    assert play.status().failure == BROKEN


def test_a_wrong_baseline_fails_the_job_with_both_numbers() -> None:
    play = Play()
    play.box()
    play.submit()
    play.extract()
    measure_model(play, tuned=False, error=0.25)
    failure = play.status().failure
    assert failure is not None
    assert failure.kind is FailureKind.WRONG_OUTPUT
    assert "0.25" in failure.detail
    assert "0.001" in failure.detail


def test_a_baseline_that_crashes_is_done_without() -> None:
    play = Play()
    play.box()
    play.submit()
    play.extract()
    measure_model(play, tuned=False, kind=FailureKind.KERNEL_TIMEOUT)
    assert play.status().state is JobState.RUNNING
    assert play.status().untuned is None


def test_a_failed_build_is_a_failed_trial_without_a_record() -> None:
    play = Play()
    play.box()
    play.submit(trials=4)
    play.extract()
    play.select(play.take(c.Select)[0])
    for build in play.take(c.Build):
        play.feed(e.BuildFailed(play.now, JOB, build.candidate, BROKEN, 0.1))
    assert play.status().failed_trials == 4
    assert play.take(c.Record) == []
    assert play.take(c.Update) == []


def test_the_race_threshold_follows_the_best_latency() -> None:
    play = Play(knobs=Knobs(stage_s=0.1))
    play.box()
    first, second = play.tuning(trials=8)
    assert first.race_s is None
    play.feed(play.result(first, 2e-3))
    (third,) = play.take(c.Profile)
    assert third.race_s == pytest.approx(3e-3)
    assert second.race_s is None


def test_time_is_up_and_what_is_not_on_a_device_is_dropped() -> None:
    play = Play(knobs=Knobs(stage_s=0.1))
    play.box()
    pushed = play.tuning(trials=8, time_s=30.0)
    play.wait(30.0)
    for one in pushed:
        play.feed(play.result(one))
    assert [one.tuned for one in play.take(c.Compile)] == [False, True]
    assert len(play.take(c.Record)) == len(pushed) == 2


def test_a_canceled_job_gives_its_device_back() -> None:
    play = Play()
    play.box()
    (pushed, *_) = play.tuning()
    play.feed(e.JobCanceled(play.now, JOB))
    assert play.status().state is JobState.CANCELED
    assert play.take(c.CloseWindow) == [c.CloseWindow(BOX, pushed.epoch)]
    assert play.scheduler.step(play.result(pushed)) == [c.WakeAt(22.0 - 2.0)]


def test_sequential_begins_a_job_when_the_one_before_has_ended() -> None:
    play = Play(policy="sequential")
    play.box()
    play.submit(JobId("one"), bundle=BLOB)
    play.submit(JobId("two"))
    assert play.status(JobId("two")).waiting_for == "job one to end"
    play.feed(e.JobCanceled(play.now, JobId("one")))
    assert [one.job for one in play.take(c.Extract)] == ["two"]


def test_sequential_measures_a_round_when_all_of_it_is_built_and_selects_when_all_is_known() -> None:
    play = Play(policy="sequential")
    play.box()
    play.submit(trials=32)
    play.extract()
    assert play.take(c.Select) == []
    measure_model(play, tuned=False, error=0.0)
    (select,) = play.take(c.Select)
    play.select(select)
    *builds, last = play.take(c.Build) + play.take(c.Build)
    for build in builds:
        play.build(build)
    assert play.take(c.OpenWindow) == []
    while more := play.take(c.Build):
        for build in more:
            play.build(build)
    play.build(last)
    assert len(play.take(c.OpenWindow)) == 1


def test_a_restarted_hub_asks_again_for_what_was_under_way() -> None:
    # Given a job with builds under way
    play = Play(slots=3, knobs=Knobs(rounds_ahead=1))
    play.box()
    play.submit()
    play.extract()
    play.select(play.take(c.Select)[0])
    under_way = play.take(c.Build) + play.take(c.Compile)
    # When
    play.feed(e.HubStarted(play.now, 3))
    # Then
    again = play.take(c.Build) + play.take(c.Compile)
    assert sorted(map(repr, again)) == sorted(map(repr, under_way))
    assert play.scheduler.devices()[0].state == "unknown"
    assert c.Report(JOB) in play.said


def test_what_was_never_asked_for_is_illegal_and_changes_nothing() -> None:
    play = Play()
    play.box()
    play.submit()
    before = play.status(), play.scheduler.devices()
    strange = [
        e.TasksExtracted(9.0, JobId("nobody"), ()),
        e.KernelBuilt(9.0, JOB, CandidateId("job/t0/c7"), BLOB, 1),
        e.CandidatesSelected(9.0, JOB, task_id(JOB, 0), 0, ()),
        e.ModelCompiled(9.0, JOB, True, BLOB, 1),
        e.BundleDelivered(9.0, JOB, BLOB, 1),
    ]
    for event in strange:
        with pytest.raises(IllegalTransition, match="its story"):
            play.feed(event)
    assert (play.status(), play.scheduler.devices()) == before
    assert play.scheduler.story(JOB)[-1].endswith("a device matches: extracting")


def test_too_many_or_misnumbered_candidates_are_illegal() -> None:
    play = Play()
    play.box()
    play.submit(trials=4)
    play.extract()
    (select,) = play.take(c.Select)
    wrong = e.CandidateFound(CandidateId("job/t0/c5"), BLOB, BLOB)
    with pytest.raises(IllegalTransition, match="asked for were 4 numbered from 0"):
        play.feed(e.CandidatesSelected(0.0, JOB, select.task, 0, (wrong,)))


def test_repeated_answers_are_counted_and_ignored() -> None:
    play = Play()
    play.box()
    play.submit()
    play.submit()
    play.extract()
    play.extract()
    assert play.scheduler.ignored == {"submitted before": 1, "answered before": 1}
    assert len(play.status().tasks) == 1


def test_ended_jobs_keep_only_their_status() -> None:
    play = Play()
    play.box()
    for number in range(50):
        name = JobId(f"job{number}")
        play.submit(name)
        play.feed(e.JobCanceled(play.now, name))
        play.extract(name)
    statuses = play.scheduler.statuses(3)
    assert [status.job for status in statuses] == ["job49", "job48", "job47"]
    assert play.scheduler._desk.jobs == {}
    assert not any(play.scheduler._desk.compute.slots)


@pytest.mark.parametrize("name", list(e.EVENTS))
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_every_event_survives_the_journal(name: str, data: st.DataObject) -> None:
    st.register_type_strategy(float, st.floats(0, 1e6))
    targets = st.builds(TargetSpec, kind=st.sampled_from(["cpu", "cuda"]))
    orders = st.builds(
        e.JobOrder, name=st.text(), target=targets, measure=st.just(Measure()), seed=st.integers(0, 9)
    )
    given_fields = {"order": orders} if name == "JobSubmitted" else {}
    event = data.draw(st.builds(e.EVENTS[name], **given_fields))
    assert e.from_json(name, e.to_json(event)) == event


def test_a_device_is_matched_by_name_label_and_tag() -> None:
    play = Play()
    play.box()
    play.box(DeviceId("lab/b"), kind="cuda", labels=(("model", "agx"),))
    for number, (target, expected) in enumerate(
        [
            (TargetSpec(device="b"), "cuda"),
            (TargetSpec(device="lab/a"), "cpu"),
            (TargetSpec(labels={"model": "agx"}), "cuda"),
            (TargetSpec(kind="cpu"), "cpu"),
        ]
    ):
        play.submit(JobId(f"job{number}"), target=target)
        (extract,) = play.take(c.Extract)
        assert extract.hardware.startswith(expected)
