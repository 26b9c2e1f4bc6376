"""What goes wrong at the edges of the scheduler: boxes that are wiped, drained or overdue, and restarts."""

from __future__ import annotations

import pytest

from fakes.fleet import BLOB, BOX, JOB, Play
from resonator.failures import FailureKind
from resonator.ids import DeviceId, JobId
from resonator.jobspec import Measure, TargetSpec
from resonator.messages import JobState
from resonator_hub.scheduler import Knobs
from resonator_hub.scheduler import commands as c
from resonator_hub.scheduler import events as e

OTHER = DeviceId("lab/b")


def test_a_box_that_was_away_may_come_back_with_a_lower_session() -> None:
    # Given a box whose state was wiped while it was offline
    play = Play()
    play.box(session=7, epoch=3)
    play.feed(e.DeviceLost(play.now, BOX))
    # When
    play.box(session=1, epoch=0)
    play.submit(bundle=BLOB)
    # Then it is used again, with an epoch above all it was ever granted
    assert [one.epoch for one in play.take(c.OpenWindow)] == [4]


def test_a_box_that_is_not_available_any_more_is_not_preferred_to_one_that_is() -> None:
    # Given two idle boxes, the first of which begins to drain
    play = Play()
    play.box()
    play.box(OTHER)
    play.submit(bundle=BLOB, job="warm-up")  # type: ignore[arg-type]
    for window in play.take(c.OpenWindow):
        play.open(window)
        (model,) = play.take(c.Profile)
        play.feed(play.result(model))
        for closing in play.take(c.CloseWindow):
            play.closed(closing.device, closing.epoch)
    play.box(epoch=1, available=False)
    # When
    play.submit(bundle=BLOB)
    # Then
    assert [one.device for one in play.take(c.OpenWindow)] == [OTHER]


def test_a_restarted_hub_grants_nothing_before_it_has_seen_a_box() -> None:
    # Given work under way on one box, and another one idle
    play = Play()
    play.box()
    play.tuning(trials=8)
    play.box(OTHER)
    play.said.clear()
    # When
    play.feed(e.HubStarted(play.now, 2))
    # Then
    assert play.take(c.OpenWindow) == []
    assert play.take(c.Profile) == []


def test_a_kernel_that_outlasts_its_windows_is_given_up() -> None:
    # Given a kernel that never ends
    play = Play()
    play.box()
    pushed = play.tuning(trials=4)
    stuck = pushed[0].candidate
    # When the box itself ends one window after the other
    for epoch in range(1, Knobs().attempts + 1):
        assert stuck in {one.candidate for one in pushed}
        play.feed(e.WindowClosed(play.now, BOX, epoch, "expired"))
        (window,) = play.take(c.OpenWindow)
        play.open(window)
        pushed = play.take(c.Profile)
    # Then
    assert pushed
    assert stuck not in {one.candidate for one in pushed}


def test_a_window_lasts_long_enough_for_the_slowest_kernel_that_is_not_yet_too_slow() -> None:
    play = Play()
    play.box()
    play.feed(
        e.JobSubmitted(play.now, JOB, e.JobOrder(JOB, TargetSpec(kind="cpu"), 4, Measure(timeout_s=500.0)))
    )
    play.extract()
    for selection in play.take(c.Select):
        play.select(selection)
    play.build(play.take(c.Build)[0])
    (window,) = play.take(c.OpenWindow)
    assert window.duration_s > 500.0


def test_a_tuned_model_is_not_lost_to_a_box_that_is_busy_for_a_minute() -> None:
    # Given a job whose tuning is over
    play = Play()
    play.box()
    play.submit(trials=4)
    play.extract(tasks=0)
    for compiling in play.take(c.Compile):
        play.compile(compiling)
    # When the box is disturbed again and again
    for _ in range(2 * (Knobs().attempts + 1)):
        play.wait(Knobs().longest_rest_s)
        for window in play.take(c.OpenWindow):
            play.open(window)
        for model in play.take(c.Profile):
            play.feed(play.result(model, kind=FailureKind.DEVICE_DIRTY))
        for closing in play.take(c.CloseWindow):
            play.closed(closing.device, closing.epoch)
    # Then
    assert play.status().state is JobState.RUNNING


def test_a_whole_model_says_nothing_of_how_long_a_kernel_takes() -> None:
    # Given a baseline that took a minute to measure
    play = Play()
    play.box()
    play.submit(trials=8)
    play.extract()
    play.compile(play.take(c.Compile)[0])
    (window,) = play.take(c.OpenWindow)
    play.open(window)
    (model,) = play.take(c.Profile)
    play.feed(e.Measured(play.now, BOX, 1, JOB, model.candidate, (3.7,), device_time_s=60.0))
    play.closed(BOX, 1)
    # When kernels are ready
    for selection in play.take(c.Select):
        play.select(selection)
    for build in play.take(c.Build):
        play.build(build)
    (window,) = play.take(c.OpenWindow)
    play.open(window)
    # Then several of them go to the device ahead
    assert len(play.take(c.Profile)) > 4


def test_the_longest_target_fits_into_a_status() -> None:
    # Given a job by as many and as long labels as a description may have
    play = Play()
    labels = {f"{n:02}{'k' * 61}": "v" * 128 for n in range(16)}
    play.submit(target=TargetSpec(labels=labels))
    assert play.status().waiting_for.startswith("a device that offers label 00k")
    # When
    play.feed(e.JobCanceled(play.now, JOB))
    # Then
    assert play.status().state is JobState.CANCELED


def test_the_longest_reason_fits_into_a_report() -> None:
    play = Play()
    play.box()
    play.submit(bundle=BLOB)
    play.feed(e.WindowRefused(play.now, BOX, 1, None, "x" * 2000))
    (report,) = play.scheduler.devices()
    assert report.reason.startswith("refused a window: x")


@pytest.mark.parametrize("phase", ["queued", "extracting", "tuning", "compiling", "verifying", "delivering"])
def test_a_job_may_be_canceled_in_every_phase(phase: str) -> None:
    play = Play()
    if phase != "queued":
        play.box()
    play.submit(trials=8)
    if phase not in {"queued", "extracting"}:
        play.extract(tasks=1 if phase == "tuning" else 0)
    if phase in {"verifying", "delivering"}:
        for compiling in play.take(c.Compile):
            play.compile(compiling)
    if phase == "delivering":
        for _ in range(2):
            (window,) = play.take(c.OpenWindow)
            play.open(window)
            (model,) = play.take(c.Profile)
            play.feed(play.result(model, error=0.0))
            (closing,) = play.take(c.CloseWindow)
            play.closed(closing.device, closing.epoch)
        assert play.take(c.Deliver)
    play.feed(e.JobCanceled(play.now, JOB))
    assert play.status().state is JobState.CANCELED
    for closing in play.take(c.CloseWindow):
        play.closed(closing.device, closing.epoch)
    # The box is free for the next job
    play.box(epoch=9)
    play.submit("next", bundle=BLOB)  # type: ignore[arg-type]
    assert [one.job for one in play.take(c.OpenWindow)][-1:] == ["next"]


def test_the_models_of_two_jobs_that_wait_for_a_lost_device_both_go_to_another() -> None:
    # Given two jobs whose models have each had a window on the same device, without a result
    play, jobs = Play(knobs=Knobs(quantum_s=0.0)), (JobId("one"), JobId("two"))
    play.box()
    for job in jobs:
        play.submit(job, bundle=BLOB)
    for _ in range(4):
        for window in play.take(c.OpenWindow):
            play.open(window)
            play.wait(1.0)
            play.closed(window.device, window.epoch)
    # When that device is lost, and another one measures whatever it is sent
    play.feed(e.DeviceLost(play.now, BOX))
    play.said.clear()
    play.box(OTHER)
    for _ in range(6):
        for window in play.take(c.OpenWindow):
            play.open(window)
        for pushed in play.take(c.Profile):
            play.feed(play.result(pushed))
        for closing in play.take(c.CloseWindow):
            play.closed(closing.device, closing.epoch)
    # Then neither is forgotten
    assert [play.status(job).state for job in jobs] == [JobState.SUCCEEDED, JobState.SUCCEEDED]
