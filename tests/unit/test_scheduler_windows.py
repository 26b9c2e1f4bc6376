"""The scheduler's rules, one by one: devices and their windows."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fakes.fleet import BLOB, BOX, JOB, Play
from resonator.failures import FailureKind
from resonator.ids import DeviceId, JobId
from resonator.jobspec import Measure
from resonator.messages import DeviceList, DeviceState, Drain, JobState, Status, WindowGrant
from resonator_hub.scheduler import Knobs
from resonator_hub.scheduler import commands as c
from resonator_hub.scheduler import events as e

OTHER = DeviceId("lab/b")


def test_the_first_epoch_is_above_the_highest_the_device_has_accepted() -> None:
    play = Play()
    play.box(epoch=41)
    play.submit(bundle=BLOB)
    assert [one.epoch for one in play.take(c.OpenWindow)] == [42]


def test_attack_by_the_highest_epoch_a_device_may_say_leaves_room_for_windows() -> None:
    highest = 2**61 - 1
    DeviceState(status=Status.IDLE, session=1, instance="i", epoch=highest)
    with pytest.raises(ValidationError):
        DeviceState(status=Status.IDLE, session=1, instance="i", epoch=highest + 1)
    play = Play()
    play.box(epoch=highest)
    play.submit(bundle=BLOB)
    (window,) = play.take(c.OpenWindow)
    WindowGrant(epoch=window.epoch, job=JOB, duration=window.duration_s, measure=Measure())
    DeviceList(devices=tuple(play.scheduler.devices()))


def test_a_refused_window_is_asked_for_again_above_the_highest() -> None:
    play = Play()
    play.box()
    play.submit(bundle=BLOB)
    play.feed(e.WindowRefused(play.now, BOX, 1, 7, "seen before"))
    play.wait(Knobs().rest_s)
    assert [one.epoch for one in play.take(c.OpenWindow)] == [1, 8]


def test_a_device_that_refuses_again_and_again_is_left_alone_for_a_while() -> None:
    # Given a device without a liking for windows
    play = Play()
    play.box()
    play.submit(bundle=BLOB)
    # When it rests after each refusal, twice as long each time
    for epoch, rest_s in ((1, 2.0), (2, 4.0), (3, 0.0)):
        play.feed(e.WindowRefused(play.now, BOX, epoch, None, "no answer"))
        play.wait(rest_s)
    # Then
    (report,) = play.scheduler.devices()
    assert (report.health, report.reason) == ("bad", "refused a window: no answer")
    assert play.status().waiting_for == "a device: all 1 that match are busy or unfit"
    assert len(play.take(c.OpenWindow)) == 3
    # When the third rest is over
    play.wait(8.0)
    # Then
    assert [one.epoch for one in play.take(c.OpenWindow)] == [4]


def test_a_dirty_result_ends_the_window_and_puts_the_kernel_back() -> None:
    # Given a window with kernels in it
    play = Play()
    play.box()
    first, *others = play.tuning(trials=4)
    # When one of them was disturbed
    play.feed(play.result(first, kind=FailureKind.DEVICE_DIRTY))
    # Then the window ends; the kernel is neither a record nor a failed trial, nor sent again into it
    assert [one.epoch for one in play.take(c.CloseWindow)] == [first.epoch]
    assert play.take(c.Record) == []
    assert play.take(c.Profile) == []
    assert play.status().failed_trials == 0
    # When the device has rested
    play.closed(BOX, first.epoch)
    assert play.take(c.OpenWindow) == []
    play.wait(Knobs().rest_s)
    (window,) = play.take(c.OpenWindow)
    play.open(window)
    # Then all of them are measured in the next window
    assert {one.candidate for one in play.take(c.Profile)} == {one.candidate for one in (first, *others)}


def test_trust_a_device_whose_results_cannot_be_true_is_bad_and_its_kernels_go_to_another() -> None:
    # Given a device that lies again and again
    play = Play()
    play.box()
    pushed = play.tuning()
    for _ in range(3):
        play.feed(play.result(pushed[0], kind=FailureKind.IMPLAUSIBLE))
        for closing in play.take(c.CloseWindow):
            play.closed(closing.device, closing.epoch)
        play.wait(60.0)
        for window in play.take(c.OpenWindow):
            play.open(window)
        pushed = play.take(c.Profile) or pushed
    # Then it is bad, nothing that it said is a record, and the next device has its kernels
    assert play.scheduler.devices()[0].health == "bad"
    assert play.take(c.Record) == []
    play.feed(e.DeviceLost(play.now, BOX))
    play.box(OTHER)
    assert [window.device for window in play.take(c.OpenWindow)] == [OTHER]


def test_a_kernel_without_luck_is_given_up_and_the_round_goes_on_without_it() -> None:
    play = Play()
    play.box()
    pushed = play.tuning(trials=4)
    unlucky = pushed[0].candidate
    for _ in range(Knobs().attempts):
        mine = next(one for one in pushed if one.candidate == unlucky)
        play.feed(play.result(mine, kind=FailureKind.DEVICE_DIRTY))
        play.closed(BOX, mine.epoch)
        play.wait(Knobs().longest_rest_s)
        play.take(c.CloseWindow)
        (window,) = play.take(c.OpenWindow)
        play.open(window)
        pushed = play.take(c.Profile)
    assert unlucky not in {one.candidate for one in pushed}
    for one in pushed:
        play.feed(play.result(one))
    assert {one.result.candidate for one in play.take(c.Record)} == {one.candidate for one in pushed}
    assert len(play.take(c.Update)) == 1
    assert play.status().failed_trials == 0


def test_a_crashing_kernel_is_a_failed_trial_and_a_record() -> None:
    play = Play()
    play.box()
    first, *_ = play.tuning(trials=4)
    play.feed(play.result(first, kind=FailureKind.KERNEL_CRASH))
    assert len(play.take(c.Record)) == 1
    assert play.status().failed_trials == 1
    assert play.scheduler.devices()[0].health == "good"


def test_a_result_is_taken_once_even_after_its_window() -> None:
    # Given a window that ended with kernels outstanding, sent again in the next
    play = Play()
    play.box()
    pushed = play.tuning(trials=4)
    play.closed(BOX, pushed[0].epoch)
    (window,) = play.take(c.OpenWindow)
    play.open(window)
    again = play.take(c.Profile)
    assert [one.candidate for one in again] == [one.candidate for one in pushed]
    # When the old result comes late, and then the new one
    play.feed(play.result(pushed[0]))
    play.feed(play.result(again[0]))
    # Then
    assert len(play.take(c.Record)) == 1
    assert play.scheduler.ignored == {"answered before": 1}


def test_a_result_from_another_device_or_epoch_is_ignored() -> None:
    play = Play()
    play.box()
    first, *_ = play.tuning(trials=4)
    stranger = c.Profile(BOX, 99, JOB, first.candidate, BLOB, 1)
    play.feed(play.result(stranger))
    assert play.take(c.Record) == []
    assert play.scheduler.ignored == {"a result nobody asked for": 1}


def test_a_lost_device_gives_its_kernels_to_another_all_of_the_round() -> None:
    play = Play()
    play.box()
    pushed = play.tuning(trials=4)
    play.box(OTHER)
    play.feed(e.DeviceLost(play.now, BOX))
    (window,) = play.take(c.OpenWindow)
    assert window.device == OTHER
    play.open(window)
    assert [one.candidate for one in play.take(c.Profile)] == [one.candidate for one in pushed]
    assert [one.state for one in play.scheduler.devices()] == ["offline", "running"]


def test_a_silent_window_is_over_when_its_lease_is() -> None:
    play = Play()
    play.box()
    (first, *_) = play.tuning(trials=4)
    play.wait(Knobs().window_s + Knobs().grace_s)
    assert [one.epoch for one in play.take(c.OpenWindow)] == [first.epoch + 1]


def test_a_window_is_closed_when_it_has_had_nothing_to_do_for_a_while() -> None:
    play = Play()
    play.box()
    pushed = play.tuning(trials=8)
    for one in pushed:
        play.feed(play.result(one))
    assert play.take(c.CloseWindow) == []
    play.wait(Knobs().linger_s)
    assert play.take(c.CloseWindow) == [c.CloseWindow(BOX, pushed[0].epoch)]


def test_a_device_changes_hands_when_its_quantum_is_used() -> None:
    # Given a job with a full queue on the only box, and another that wants it
    play = Play()
    play.box()
    (first, *_) = play.tuning(trials=32)
    play.submit(JobId("other"), bundle=BLOB)
    assert play.take(c.CloseWindow) == []
    # When its quantum is used
    play.wait(Knobs().quantum_s)
    # Then
    assert play.take(c.CloseWindow) == [c.CloseWindow(BOX, first.epoch)]
    play.closed(BOX, first.epoch)
    assert [one.job for one in play.take(c.OpenWindow)] == ["other"]


def test_never_a_second_window_before_the_first_has_ended() -> None:
    play = Play()
    play.box()
    play.submit(JobId("one"), bundle=BLOB)
    play.submit(JobId("two"), bundle=BLOB)
    assert [one.job for one in play.take(c.OpenWindow)] == ["one"]
    play.box()
    assert play.take(c.OpenWindow) == []


def test_a_new_session_voids_the_window_of_the_old() -> None:
    play = Play()
    play.box()
    (first, *_) = play.tuning(trials=4)
    play.box(session=2, epoch=first.epoch)
    assert [one.epoch for one in play.take(c.OpenWindow)] == [first.epoch + 1]
    play.box(session=1)
    assert play.scheduler.ignored == {"an older session": 1}


def test_a_draining_device_is_in_maintenance_and_gets_nothing_more() -> None:
    play = Play()
    play.box(available=False)
    play.submit(bundle=BLOB)
    assert play.take(c.OpenWindow) == []
    assert play.scheduler.devices()[0].health == "maintenance"
    play.box(available=True)
    assert len(play.take(c.OpenWindow)) == 1


def test_a_drained_device_ends_its_window_and_gets_no_other_until_it_is_undrained() -> None:
    # Given a device that measures
    play = Play()
    play.box()
    play.submit(bundle=BLOB)
    play.open(play.take(c.OpenWindow)[0])
    # When it is drained
    play.feed(e.DeviceDrained(play.now, BOX, "it is moved", "lab/client/olga", "operator"))
    # Then its window is ended, and whoever waits is told why
    (closing,) = play.take(c.CloseWindow)
    play.closed(BOX, closing.epoch)
    assert play.take(c.OpenWindow) == []
    (report,) = play.scheduler.devices()
    assert (report.state, report.health) == ("idle", "maintenance")
    assert report.drained == Drain(by="lab/client/olga", role="operator", reason="it is moved")
    assert "lab/a is drained by lab/client/olga: it is moved" in play.status().waiting_for
    # And when it comes back from a restart it is drained still; undrained, it goes on
    play.box(session=2, epoch=closing.epoch)
    assert play.take(c.OpenWindow) == []
    play.feed(e.DeviceUndrained(play.now, BOX))
    assert len(play.take(c.OpenWindow)) == 1
    assert play.scheduler.devices()[0].drained is None


def test_what_a_drained_device_was_measuring_still_counts() -> None:
    play = Play()
    play.box()
    first, *_ = play.tuning()
    play.feed(e.DeviceDrained(play.now, BOX))
    play.feed(play.result(first))
    assert [record.result.candidate for record in play.take(c.Record)] == [first.candidate]


def test_a_job_begins_where_nobody_has_drained_the_devices() -> None:
    play = Play()
    play.box()
    play.feed(e.DeviceDrained(play.now, BOX, by="lab/client/olga"))
    play.submit()
    status = play.status()
    assert status.state is JobState.QUEUED
    assert status.waiting_for == "a device that offers kind cpu; lab/a is drained by lab/client/olga"
    play.box(OTHER, cpu_model="another")
    assert play.status().state is JobState.RUNNING


def test_a_device_that_is_not_known_cannot_be_drained() -> None:
    play = Play()
    play.feed(e.DeviceDrained(play.now, BOX))
    assert play.scheduler.devices() == []
    assert play.scheduler.ignored == {"an unknown device": 1}


def test_the_rounds_of_one_job_spread_over_the_devices_it_matches() -> None:
    play = Play(slots=64)
    play.box()
    play.box(OTHER)
    pushed = play.tuning(trials=64, tasks=2)
    by_task = {one.candidate.rpartition("/")[0]: one.device for one in pushed}
    assert sorted(by_task.values()) == [BOX, OTHER]


@pytest.mark.parametrize("certain", [True, False])
def test_a_device_out_of_sight_is_not_dead(certain: bool) -> None:
    play = Play()
    play.box()
    play.feed(e.DeviceLost(play.now, BOX, certain))
    assert play.scheduler.devices()[0].state == ("offline" if certain else "unknown")


def test_a_device_whose_link_is_cut_keeps_its_window_until_the_lease_is_over() -> None:
    # Given two devices of one kind, of which one measures
    play = Play()
    play.box()
    pushed = play.tuning(trials=8)
    play.box(OTHER)
    # When its link is cut
    play.feed(e.DeviceLost(play.now, BOX, certain=False))
    # Then it is unknown, is sent nothing more, and nobody else has its kernels
    reports = {report.device: report for report in play.scheduler.devices()}
    assert (reports[BOX].state, reports[BOX].job) == ("unknown", JOB)
    assert play.take(c.OpenWindow) == []
    # When the lease is over
    play.wait(Knobs().window_s + Knobs().grace_s)
    # Then the other one has them, none at the expense of an attempt
    (window,) = play.take(c.OpenWindow)
    assert window.device == OTHER
    play.open(window)
    again = play.take(c.Profile)
    assert {one.candidate for one in again} == {one.candidate for one in pushed}
    # When the results of both come, they count once each
    play.feed(e.DeviceSeen(play.now, BOX, 1, pushed[0].epoch, "cpu", (e.Offer("cpu", "{}"),)))
    for one in (*pushed, *again):
        play.feed(play.result(one))
    recorded = [one.result.candidate for one in play.take(c.Record)]
    assert sorted(recorded) == sorted(one.candidate for one in pushed)


def test_a_link_that_is_back_within_the_lease_changes_nothing() -> None:
    play = Play()
    play.box()
    pushed = play.tuning(trials=8)
    play.feed(e.DeviceLost(play.now, BOX, certain=False))
    for one in pushed[1:]:
        play.feed(play.result(one))  # they were under way
    assert play.scheduler.devices()[0].state == "unknown"
    play.box(epoch=pushed[0].epoch)
    assert play.scheduler.devices()[0].state == "running"
    play.feed(play.result(pushed[0]))
    assert len(play.take(c.Record)) == len(pushed)
    assert play.take(c.OpenWindow) == []


def test_a_device_behind_a_cut_link_is_known_and_granted_nothing() -> None:
    play = Play()
    offer = e.Offer("cpu", "{}")
    play.feed(e.DeviceSeen(play.now, BOX, 1, 0, "cpu", (offer,), visible=False))
    play.submit(bundle=BLOB)
    assert play.status().state is JobState.QUEUED
    assert play.take(c.OpenWindow) == []
    play.feed(e.DeviceSeen(play.now, BOX, 1, 0, "cpu", (offer,)))
    assert [window.device for window in play.take(c.OpenWindow)] == [BOX]


def test_a_device_that_dies_behind_a_cut_link_is_offline() -> None:
    play = Play()
    play.box()
    play.tuning(trials=8)
    play.feed(e.DeviceLost(play.now, BOX, certain=False))
    play.feed(e.DeviceLost(play.now, BOX))
    (report,) = play.scheduler.devices()
    assert (report.state, report.job) == ("offline", None)
