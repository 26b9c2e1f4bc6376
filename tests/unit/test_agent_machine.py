"""The agent's machine, rule by rule."""

from __future__ import annotations

from typing import TypeVar

import pytest

from resonator.failures import Failure, FailureKind
from resonator.jobspec import Measure
from resonator.messages import (
    BlobRef,
    DeviceClaim,
    DeviceState,
    Identity,
    KernelPush,
    KernelResult,
    Message,
    Offer,
    Status,
    WindowClosed,
    WindowGrant,
    WindowOpened,
    WindowRefused,
)
from resonator_agent import commands as do
from resonator_agent import events as ev
from resonator_agent.machine import DRAIN_S, IllegalTransition, Machine, State
from resonator_agent.naming import CLAIM_S, Bearer

M = TypeVar("M", bound=Message)
C = TypeVar("C", bound=do.Command)
IDENTITY = Identity(
    architecture="x86_64",
    cpu_model="test",
    cores=1,
    cores_used=(0,),
    memory=1,
    tvm_version="0",
    agent_version="0",
    offers=(Offer(kind="cpu", target="{}"),),
)
GOOD = ev.Outcome(latencies=(1e-3,))


def machine(**options: object) -> Machine:
    given = {"bearer": Bearer(session=5, instance="m"), "credit": 1000, **options}
    return Machine(IDENTITY, **given)  # type: ignore[arg-type]


def idle(**options: object) -> Machine:
    made = machine(**options)
    made.step(ev.Connected(0.0))
    made.step(ev.Woke(CLAIM_S))
    return made


def grant(epoch: int, job: str = "job", duration: float = 100.0) -> WindowGrant:
    return WindowGrant(epoch=epoch, job=job, duration=duration, measure=Measure())


def push(candidate: str, *, epoch: int = 1, size: int = 100, job: str = "job") -> KernelPush:
    digest = f"{sum(map(ord, candidate)):064x}"
    return KernelPush(epoch=epoch, job=job, candidate=candidate, blob=BlobRef(digest=digest, size=size))


def arrived(order: KernelPush, at: float = 20.0) -> ev.BlobArrived:
    return ev.BlobArrived(at, order.blob.digest)


def opened(epoch: int = 1, **options: object) -> Machine:
    made = idle(**options)
    made.step(ev.Granted(10.0, grant(epoch)))
    return made


def measuring(order: KernelPush) -> Machine:
    made = opened()
    made.step(ev.KernelPushed(15.0, order))
    made.step(arrived(order))
    return made


def said(commands: list[do.Command], kind: type[M]) -> list[M]:
    return [c.message for c in commands if isinstance(c, do.Say) and isinstance(c.message, kind)]


def given(commands: list[do.Command], kind: type[C]) -> list[C]:
    return [command for command in commands if isinstance(command, kind)]


# --- the name -------------------------------------------------------------------------------------------


def test_a_newcomer_asks_first_and_announces_itself_after_silence() -> None:
    made = machine()

    assert said(made.step(ev.Connected(0.0)), DeviceClaim) == [DeviceClaim(instance="m")]
    assert made.step(ev.Woke(CLAIM_S - 0.1)) == []
    (state,) = said(made.step(ev.Woke(CLAIM_S)), DeviceState)
    assert (state.status, state.session, state.identity) == (Status.IDLE, 5, IDENTITY)


def test_a_newcomer_gives_up_when_a_living_holder_answers() -> None:
    made = machine()
    made.step(ev.Connected(0.0))
    answer = DeviceState(status=Status.IDLE, session=1, instance="z", contested_by="m")

    (command,) = made.step(ev.StateSeen(1.0, answer))

    assert isinstance(command, do.GiveUp)
    assert "taken" in command.reason
    assert made.state is State.GONE


def test_a_retained_state_that_answers_nobody_does_not_stop_a_newcomer() -> None:
    made = machine()
    made.step(ev.Connected(0.0))

    assert made.step(ev.StateSeen(0.1, DeviceState(status=Status.IDLE, session=9, instance="z"))) == []
    assert made.state is State.CLAIMING


def test_of_two_newcomers_the_lower_instance_wins() -> None:
    low, high = machine(bearer=Bearer(1, "a")), machine(bearer=Bearer(1, "b"))
    for each in (low, high):
        each.step(ev.Connected(0.0))

    assert said(low.step(ev.ClaimSeen(1.0, "b")), DeviceClaim) == [DeviceClaim(instance="a")]
    assert given(high.step(ev.ClaimSeen(1.0, "a")), do.GiveUp)


def test_a_holder_answers_a_claim_of_another_but_not_its_own() -> None:
    made = idle()

    (state,) = said(made.step(ev.ClaimSeen(5.0, "other")), DeviceState)
    assert state.contested_by == "other"
    assert made.step(ev.ClaimSeen(5.0, "m")) == []


def test_a_holder_steps_down_for_a_newer_session() -> None:
    newer = DeviceState(status=Status.IDLE, session=6, instance="z")

    assert given(idle().step(ev.StateSeen(5.0, newer)), do.GiveUp)


def test_a_holder_ignores_an_older_session() -> None:
    older = DeviceState(status=Status.IDLE, session=4, instance="z")

    assert idle().step(ev.StateSeen(5.0, older)) == []


def test_a_late_will_is_overwritten() -> None:
    made = idle()
    will = DeviceState(status=Status.OFFLINE, session=4, instance="z")

    assert said(made.step(ev.StateSeen(5.0, will)), DeviceState)[0].status is Status.IDLE


# --- the window -----------------------------------------------------------------------------------------


def test_the_epoch_is_stored_before_the_window_is_announced() -> None:
    commands = idle().step(ev.Granted(10.0, grant(1)))

    assert isinstance(commands[0], do.StoreWindow)
    assert (commands[0].epoch, commands[0].job) == (1, "job")
    assert said(commands, WindowOpened)[0].credit == 1000
    assert said(commands, DeviceState)[-1].status is Status.RUNNING


def test_a_repeated_grant_is_answered_with_the_same_window() -> None:
    made = idle()
    first = said(made.step(ev.Granted(10.0, grant(1))), WindowOpened)

    assert said(made.step(ev.Granted(11.0, grant(1))), WindowOpened) == first


@pytest.mark.parametrize("epoch", [0, 6, 7])
def test_an_epoch_that_is_not_higher_is_refused_with_the_highest(epoch: int) -> None:
    made = idle(highest=7)

    (refused,) = said(made.step(ev.Granted(10.0, grant(epoch))), WindowRefused)
    assert refused.highest == 7
    assert made.state is State.IDLE


def test_another_grant_of_the_open_epoch_is_refused() -> None:
    made = opened(3)

    assert said(made.step(ev.Granted(11.0, grant(3, job="thief"))), WindowRefused)
    assert made.window is not None
    assert made.window.grant.job == "job"


def test_a_higher_epoch_supersedes_an_open_window() -> None:
    commands = opened(1).step(ev.Granted(11.0, grant(2, job="next")))

    spoken = [c.message for c in commands if isinstance(c, do.Say)]
    assert [type(m) for m in spoken] == [WindowClosed, WindowOpened, DeviceState]
    assert spoken[0] == WindowClosed(epoch=1, job="job", reason="superseded")


def test_a_superseded_kernel_is_stopped_before_the_next_window_opens() -> None:
    made = measuring(push("c1"))

    stopping = made.step(ev.Granted(30.0, grant(2)))
    assert given(stopping, do.StopProfiling)
    assert not said(stopping, WindowOpened)
    ended = made.step(ev.ProfilingEnded(31.0, None))
    assert said(ended, WindowClosed)[0].reason == "superseded"
    assert said(ended, WindowOpened)[0].epoch == 2
    assert not said(ended, KernelResult)


def test_a_waiting_grant_gives_way_to_a_higher_one() -> None:
    made = measuring(push("c1"))
    made.step(ev.Granted(30.0, grant(2)))

    assert said(made.step(ev.Granted(30.5, grant(3))), WindowRefused)[0].epoch == 2
    assert said(made.step(ev.ProfilingEnded(31.0, None)), WindowOpened)[0].epoch == 3


def test_a_window_expires_on_the_devices_own_clock() -> None:
    made = opened()

    assert made.step(ev.Woke(109.9)) == []
    assert said(made.step(ev.Woke(110.0)), WindowClosed)[0].reason == "expired"


def test_a_kernel_that_outlasts_its_window_is_stopped() -> None:
    made = measuring(push("c1"))

    assert given(made.step(ev.Woke(110.0)), do.StopProfiling)
    assert said(made.step(ev.ProfilingEnded(110.1, None)), WindowClosed)[0].reason == "expired"


def test_a_close_lets_the_current_kernel_finish_and_gives_up_the_staged() -> None:
    first, second = push("c1"), push("c2")
    made = measuring(first)
    made.step(ev.KernelPushed(16.0, second))

    assert not given(made.step(ev.CloseAsked(21.0, 1)), do.StopProfiling)
    ended = made.step(ev.ProfilingEnded(22.0, GOOD))
    assert [r.candidate for r in said(ended, KernelResult)] == ["c1"]
    assert said(ended, WindowClosed) == [WindowClosed(epoch=1, job="job", reason="asked", measured=1)]
    assert given(ended, do.Discard)[-1].digest == second.blob.digest


def test_a_close_of_another_epoch_changes_nothing() -> None:
    made = opened(2)

    assert given(made.step(ev.CloseAsked(11.0, 1)), do.Refuse)
    assert made.state is State.READY


def test_an_interrupted_window_is_closed_when_the_agent_is_back() -> None:
    made = machine(highest=4, interrupted=(4, "job"))
    made.step(ev.Connected(0.0))

    commands = made.step(ev.Woke(CLAIM_S))

    assert said(commands, WindowClosed) == [WindowClosed(epoch=4, job="job", reason="restarted")]
    assert given(commands, do.StoreWindow) == [do.StoreWindow(4, None)]


def test_while_the_name_is_not_settled_grants_are_not_answered() -> None:
    assert machine().step(ev.Granted(0.0, grant(1))) == []


# --- kernels --------------------------------------------------------------------------------------------


def test_kernels_run_in_order_of_arrival_once_their_blobs_are_here() -> None:
    first, second, third = push("c1"), push("c2"), push("c3")
    made = opened()
    for order in (first, second, third):
        assert given(made.step(ev.KernelPushed(15.0, order)), do.Fetch)

    assert given(made.step(arrived(second)), do.StartProfiling)[0].push == second
    made.step(arrived(third))
    made.step(arrived(first))
    # The device goes on first, then the result is kept and told.
    next_, told, *_ = made.step(ev.ProfilingEnded(21.0, GOOD))
    assert isinstance(next_, do.StartProfiling)
    assert next_.push == first
    assert isinstance(told, do.Say)
    assert given(made.step(ev.ProfilingEnded(22.0, GOOD)), do.StartProfiling)[0].push == third


def test_a_shared_blob_is_fetched_once_and_kept_as_long_as_it_is_needed() -> None:
    first = push("c1")
    twin = first.model_copy(update={"candidate": "c2"})
    made = opened()
    made.step(ev.KernelPushed(15.0, first))

    assert not given(made.step(ev.KernelPushed(15.0, twin)), do.Fetch)
    made.step(arrived(first))
    assert not given(made.step(ev.ProfilingEnded(21.0, GOOD)), do.Discard)
    assert given(made.step(ev.ProfilingEnded(22.0, GOOD)), do.Discard)


def test_a_kernel_of_another_epoch_or_job_is_refused_and_counted() -> None:
    made = opened(2)

    for stray in (push("c1", epoch=1), push("c1", epoch=3), push("c1", epoch=2, job="other")):
        assert given(made.step(ev.KernelPushed(15.0, stray)), do.Refuse)
    assert made.refusals == {"stale epoch": 1, "another window": 2}
    assert len(made.stage) == 0


def test_a_push_beyond_the_credit_is_refused_and_counted() -> None:
    made = opened()
    made.step(ev.KernelPushed(15.0, push("c1", size=900)))

    (refused,) = given(made.step(ev.KernelPushed(15.0, push("c2", size=101))), do.Refuse)
    assert "101 bytes" in refused.reason
    assert made.stage.bytes == 900


def test_a_duplicate_of_a_staged_kernel_is_ignored() -> None:
    made = measuring(push("c1"))

    assert made.step(ev.KernelPushed(21.0, push("c1"))) == []
    assert made.refusals == {"repeated": 1}


def test_a_duplicate_of_a_measured_kernel_is_answered_from_the_outbox() -> None:
    made = measuring(push("c1"))
    made.step(ev.ProfilingEnded(21.0, GOOD))

    assert made.step(ev.KernelPushed(22.0, push("c1"))) == [do.Repeat("c1")]


def test_a_corrupt_blob_is_its_kernels_result() -> None:
    order = push("c1")
    made = opened()
    made.step(ev.KernelPushed(15.0, order))
    corrupt = Failure(kind=FailureKind.BLOB_CORRUPT, detail="other bytes")

    (result,) = said(made.step(ev.BlobFailed(16.0, order.blob.digest, corrupt)), KernelResult)
    assert result.failure == corrupt
    assert made.stage.bytes == 0


def test_a_blob_that_arrives_after_the_window_closed_is_ignored() -> None:
    order = push("c1")
    made = opened()
    made.step(ev.KernelPushed(15.0, order))
    made.step(ev.CloseAsked(16.0, 1))

    assert made.step(arrived(order)) == []


# --- the end --------------------------------------------------------------------------------------------


def test_an_idle_agent_says_goodbye_at_once() -> None:
    commands = idle().step(ev.DrainAsked(5.0))

    assert said(commands, DeviceState)[0].status is Status.OFFLINE
    assert commands[-1] == do.Leave()


def test_a_drain_finishes_the_current_kernel() -> None:
    made = measuring(push("c1"))

    draining = made.step(ev.DrainAsked(21.0))
    assert said(draining, DeviceState)[0].status is Status.DRAINING
    ended = made.step(ev.ProfilingEnded(22.0, GOOD))
    assert said(ended, KernelResult)
    assert said(ended, WindowClosed)[0].reason == "drained"
    assert ended[-1] == do.Leave()


def test_a_drain_gives_up_a_kernel_that_takes_too_long() -> None:
    made = measuring(push("c1"))
    made.step(ev.DrainAsked(21.0))

    assert given(made.step(ev.Woke(21.0 + DRAIN_S)), do.StopProfiling)
    assert given(made.step(ev.ProfilingEnded(40.0, None)), do.Leave)


def test_a_second_request_stops_the_current_kernel_at_once() -> None:
    made = measuring(push("c1"))
    made.step(ev.DrainAsked(21.0))

    assert given(made.step(ev.DrainAsked(21.5)), do.StopProfiling)


def test_a_draining_agent_takes_no_new_window() -> None:
    made = measuring(push("c1"))
    made.step(ev.DrainAsked(21.0))

    assert said(made.step(ev.Granted(21.5, grant(9))), WindowRefused)[0].reason == "the agent is draining"


def test_a_reconnect_announces_the_state_and_repeats_the_outbox() -> None:
    commands = opened().step(ev.Connected(30.0))

    assert said(commands, DeviceState)[0].status is Status.RUNNING
    assert commands[-1] == do.Repeat()


def test_an_impossible_event_raises_with_the_story_and_changes_nothing() -> None:
    made = idle()

    with pytest.raises(IllegalTransition, match=r"ProfilingEnded cannot happen while idle.*Woke: claiming"):
        made.step(ev.ProfilingEnded(5.0, GOOD))
    assert made.state is State.IDLE
