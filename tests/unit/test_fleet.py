"""Presence by session, windows that are asked for until answered, acknowledgements after the journal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.shell import BOX, CLIENT, SITE, Shell, identity, shell, state
from resonator.bus import topics
from resonator.ids import DeviceId, JobId
from resonator.jobspec import Measure
from resonator.messages import (
    Ack,
    DeviceClaim,
    DeviceReport,
    Status,
    Telemetry,
    WindowClose,
    WindowClosed,
    WindowGrant,
    WindowOpened,
    WindowRefused,
)
from resonator_hub.fleet import Acks, Links, Presence, Registry, Windows
from resonator_hub.scheduler import events
from resonator_hub.scheduler.commands import CloseWindow, OpenWindow

DEVICE = DeviceId(f"{SITE}/{BOX}")
JOB = JobId("j")


@dataclass
class Fleet:
    shell: Shell
    acks: Acks
    windows: Windows
    registry: Registry
    opened: list[tuple[str, int, int]]
    ended: list[str]

    def acked(self) -> list[str]:
        return [i for d in self.shell.broker.sent(Ack) for i in getattr(d.message, "ids", ())]

    def grant(self, epoch: int) -> None:
        self.windows.open(OpenWindow(DEVICE, JOB, epoch, 60.0), Measure())


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with shell(tmp_path) as base:
        acks, registry = Acks(base.peer), Registry(base.database)
        opened: list[tuple[str, int, int]] = []
        ended: list[str] = []
        windows = Windows(
            base.peer,
            base.inbox,
            acks,
            opened=lambda *window: opened.append(window),
            ended=ended.append,
            repeat_s=0.01,
        )
        links = Links(base.peer, base.inbox.now)
        Presence(base.peer, base.inbox, registry, links, windows.granted, windows.lost)
        yield Fleet(base, acks, windows, registry, opened, ended)
        await windows.close()
        await acks.close(1.0)


# --- presence -------------------------------------------------------------------------------------------


async def test_a_device_is_seen_once_however_often_it_says_the_same(fleet: Fleet) -> None:
    for _ in range(3):
        await fleet.shell.device_says("state", state())
    (seen,) = fleet.shell.events
    assert isinstance(seen, events.DeviceSeen)
    assert (seen.device, seen.session, seen.labels, seen.available) == (
        DEVICE,
        1,
        (("model", "el300"),),
        True,
    )
    assert fleet.registry.identity(DEVICE) == identity()


async def test_what_changes_is_news(fleet: Fleet) -> None:
    await fleet.shell.device_says("state", state())
    await fleet.shell.device_says("state", state(status=Status.DRAINING))
    await fleet.shell.device_says("state", state(2, epoch=9))
    assert [
        (e.session, e.epoch, e.available) for e in fleet.shell.events if isinstance(e, events.DeviceSeen)
    ] == [
        (1, 0, True),
        (1, 0, False),
        (2, 9, True),
    ]


async def test_the_epoch_of_a_granted_window_is_no_news_and_a_higher_one_is(fleet: Fleet) -> None:
    await fleet.shell.device_says("state", state())
    fleet.grant(1)
    await fleet.shell.device_says("state", state(status=Status.RUNNING, epoch=1))
    assert len(fleet.shell.events) == 1
    await fleet.shell.device_says("state", state(status=Status.RUNNING, epoch=2))
    assert len(fleet.shell.events) == 2


async def test_a_will_ends_its_own_session_but_no_newer_one(fleet: Fleet) -> None:
    await fleet.shell.device_says("state", state(2))
    await fleet.shell.device_says("state", state(1, Status.OFFLINE))
    assert len(fleet.shell.events) == 1
    assert fleet.shell.peer.refused["late"] == 1
    await fleet.shell.device_says("state", state(2, Status.OFFLINE))
    lost = fleet.shell.events[-1]
    assert isinstance(lost, events.DeviceLost)
    assert lost.certain
    await fleet.shell.device_says("state", state(2, Status.OFFLINE))
    assert len(fleet.shell.events) == 2


async def test_a_repeated_message_changes_nothing(fleet: Fleet) -> None:
    await fleet.shell.device_says("state", state(), message_id="a")
    await fleet.shell.device_says("state", state(1, Status.OFFLINE), message_id="b")
    await fleet.shell.device_says("state", state(), message_id="a")
    assert [type(e) for e in fleet.shell.events] == [events.DeviceSeen, events.DeviceLost]


async def test_a_device_known_from_before_that_is_offline_is_lost(fleet: Fleet) -> None:
    fleet.registry.keep(DEVICE, identity())
    await fleet.shell.device_says("state", state(5, Status.OFFLINE))
    assert [type(e) for e in fleet.shell.events] == [events.DeviceLost]


async def test_a_state_without_identity_and_a_claim_change_nothing(fleet: Fleet) -> None:
    await fleet.shell.device_says("state", state(identity=None))
    await fleet.shell.device_says("state", DeviceClaim(instance="other"))
    assert fleet.shell.events == []
    assert fleet.shell.peer.refused["invalid"] == 1


async def test_a_state_on_a_clients_topic_is_refused(fleet: Fleet) -> None:
    await fleet.shell.hear(topics.client_up(SITE, CLIENT), state())
    assert fleet.shell.events == []
    assert fleet.shell.peer.refused["misplaced"] == 1


async def test_a_report_is_completed_by_what_the_device_said(fleet: Fleet) -> None:
    await fleet.shell.device_says("state", state())
    await fleet.shell.device_says("telemetry", Telemetry(epoch=3, candidate="j/t0/c1"))
    running = DeviceReport(device=DEVICE, state="running", epoch=3)
    assert fleet.registry.complete(running).doing == "measuring j/t0/c1"
    assert fleet.registry.complete(running).identity == identity()
    assert fleet.registry.complete(running.model_copy(update={"epoch": 4})).doing == ""


async def test_identities_outlive_the_hub(fleet: Fleet) -> None:
    await fleet.shell.device_says("state", state())
    assert Registry(fleet.shell.database).identity(DEVICE) == identity()


# --- windows ----------------------------------------------------------------------------------------------


async def test_a_grant_is_repeated_with_one_id_until_it_is_answered(fleet: Fleet) -> None:
    fleet.grant(1)
    await fleet.shell.broker.wait_for(WindowGrant, 3)
    sent = await fleet.shell.device_says("window", WindowOpened(epoch=1, job=JOB, credit=100))
    count = len(fleet.shell.broker.sent(WindowGrant))
    assert len({grant.id for grant in fleet.shell.broker.sent(WindowGrant)}) == 1
    assert fleet.opened == [(DEVICE, 1, 100)]
    (opened,) = fleet.shell.events
    assert isinstance(opened, events.WindowOpened)
    assert fleet.acked() == [sent]
    await fleet.shell.settle()
    assert len(fleet.shell.broker.sent(WindowGrant)) == count


async def test_a_grant_that_nobody_answers_is_refused(fleet: Fleet) -> None:
    fleet.grant(1)
    refused = await fleet.shell.event()
    assert len(fleet.shell.broker.sent(WindowGrant)) == 6
    assert isinstance(refused, events.WindowRefused)
    assert (refused.epoch, refused.highest, refused.reason) == (1, None, "no answer")


async def test_an_epoch_too_low_is_told_to_the_scheduler_once(fleet: Fleet) -> None:
    fleet.grant(1)
    refusal = WindowRefused(epoch=1, job=JOB, highest=7, reason="seen")
    first = await fleet.shell.device_says("window", refusal)
    again = await fleet.shell.device_says("window", refusal, message_id=first)
    (refused,) = fleet.shell.events
    assert isinstance(refused, events.WindowRefused)
    assert refused.highest == 7
    assert again in fleet.acked()


async def test_a_repeated_answer_is_acknowledged_and_changes_nothing(fleet: Fleet) -> None:
    fleet.grant(1)
    opened = WindowOpened(epoch=1, job=JOB, credit=100)
    sent = await fleet.shell.device_says("window", opened)
    await fleet.shell.device_says("window", opened, message_id=sent)
    await fleet.shell.device_says("window", WindowRefused(epoch=1, job=JOB, highest=1, reason="seen"))
    assert [type(e) for e in fleet.shell.events] == [events.WindowOpened]
    assert fleet.acked().count(sent) == 2
    assert fleet.shell.peer.refused["unasked"] == 1


async def test_a_window_is_closed_until_that_is_confirmed(fleet: Fleet) -> None:
    fleet.grant(1)
    await fleet.shell.device_says("window", WindowOpened(epoch=1, job=JOB, credit=100))
    fleet.windows.end(CloseWindow(DEVICE, 1))
    assert fleet.ended == [DEVICE]
    await fleet.shell.broker.wait_for(WindowClose, 2)
    await fleet.shell.device_says("window", WindowClosed(epoch=1, job=JOB, reason="asked"))
    closed = fleet.shell.events[-1]
    assert isinstance(closed, events.WindowClosed)
    assert closed.reason == "asked"
    await fleet.windows.end_all(0.0)


async def test_a_window_that_nobody_wants_is_closed(fleet: Fleet) -> None:
    await fleet.shell.device_says("window", WindowOpened(epoch=4, job=JOB, credit=100))
    assert fleet.shell.events == []
    assert fleet.shell.peer.refused["unasked"] == 1
    close = await fleet.shell.broker.wait_for(WindowClose)
    assert getattr(close.message, "epoch", None) == 4
    await fleet.shell.device_says("window", WindowClosed(epoch=3, job=JOB, reason="expired"))
    assert fleet.shell.events == []


async def test_nothing_is_acknowledged_before_it_is_journalled(fleet: Fleet) -> None:
    fleet.shell.hold.clear()
    fleet.grant(1)
    sent = await fleet.shell.device_says("window", WindowOpened(epoch=1, job=JOB, credit=100))
    assert fleet.acked() == []
    fleet.shell.hold.set()
    await fleet.shell.broker.wait_for(Ack)
    assert fleet.acked() == [sent]


async def test_a_lost_device_is_asked_for_nothing_more(fleet: Fleet) -> None:
    await fleet.shell.device_says("state", state())
    fleet.grant(1)
    await fleet.shell.broker.wait_for(WindowGrant)
    await fleet.shell.device_says("state", state(1, Status.OFFLINE))
    count = len(fleet.shell.broker.sent(WindowGrant))
    await fleet.windows.end_all(0.0)
    assert len(fleet.shell.broker.sent(WindowGrant)) == count
    assert isinstance(fleet.shell.events[-1], events.DeviceLost)


async def test_a_hub_that_takes_its_leave_grants_nothing_more(fleet: Fleet) -> None:
    # Given a device that ends its window at the hub's goodbye
    fleet.grant(1)
    await fleet.shell.device_says("window", WindowOpened(epoch=1, job=JOB, credit=100))
    await fleet.windows.end_all(0.0)
    await fleet.shell.device_says("window", WindowClosed(epoch=1, job=JOB, reason="asked"))
    # When the scheduler would grant it to the next
    fleet.grant(2)
    await fleet.shell.settle()
    # Then
    assert [getattr(sent.message, "epoch", 0) for sent in fleet.shell.broker.sent(WindowGrant)] == [1]
