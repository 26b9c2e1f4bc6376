"""The shell: journalled, then stepped, then performed; a whole job on fakes, and the same after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.compute import FakeCompute
from fakes.house import JOB, RULES, House
from resonator import bundle
from resonator.bus.blobs import BlobStore, digest_of
from resonator.errors import InputInvalid
from resonator.failures import Failure, FailureKind
from resonator.full_disk import DiskUnusable
from resonator.ids import CandidateId, DeviceId
from resonator.messages import (
    HubState,
    JobAccepted,
    JobState,
    KernelResult,
    WindowGrant,
)
from resonator_hub import keeper, replay
from resonator_hub.build import LinkerMissing
from resonator_hub.database import Database, sqlite_url
from resonator_hub.frontends import ModelInvalid
from resonator_hub.inbox import Clock, Inbox
from resonator_hub.journal import Journal
from resonator_hub.records import Records
from resonator_hub.rules import began
from resonator_hub.runtime import Runtime
from resonator_hub.scheduler import IllegalTransition, Scheduler, commands, events
from resonator_hub.search import Proposal

# --- one step ---------------------------------------------------------------------------------------------


class ScriptedScheduler(Scheduler):
    """Remembers its events and gives the commands it was told to give."""

    def __init__(self, answer: Callable[[events.Event], list[commands.Command]]) -> None:
        super().__init__()
        self.answer = answer
        self.taken: list[events.Event] = []

    def step(self, event: events.Event) -> list[commands.Command]:
        self.taken.append(event)
        return self.answer(event)


@contextlib.asynccontextmanager
async def running(
    folder: Path,
    answer: Callable[[events.Event], list[commands.Command]],
    wall: Callable[[], float] = lambda: 100.0,
    **tables: Any,
) -> AsyncIterator[tuple[Inbox, Journal, ScriptedScheduler]]:
    database = Database.open(sqlite_url(folder / "hub.db"))
    inbox, journal = Inbox(Clock(wall=wall)), Journal(database)
    scheduler = ScriptedScheduler(answer)
    parts = {"acts": {}, "works": {}, "recall": {}, **tables}
    runtime = Runtime(inbox, journal, scheduler, **parts)
    runtime.restore()
    task = asyncio.ensure_future(runtime.run())
    try:
        yield inbox, journal, scheduler
    finally:
        task.cancel()
        await asyncio.wait({task})
        database.close()


def only(kind: type[events.Event], *given: commands.Command) -> Callable[[events.Event], list[Any]]:
    return lambda event: list(given) if isinstance(event, kind) else []


async def test_an_event_is_on_disk_when_its_commands_are_performed(tmp_path: Path) -> None:
    lengths: list[int] = []
    report = commands.Report(JOB)
    acts = {commands.Report: lambda _command: lengths.append(journal.length())}
    async with running(tmp_path, only(events.Tick, report), acts=acts) as (inbox, journal, _):
        await inbox.post(events.Tick(1.0))
    assert lengths == [1]


async def test_events_that_wait_are_kept_at_once_and_taken_in_order(tmp_path: Path) -> None:
    lengths: list[int] = []
    acts = {commands.Report: lambda _command: lengths.append(journal.length())}
    answer = only(events.Tick, commands.Report(JOB))
    async with running(tmp_path, answer, acts=acts) as (inbox, journal, scheduler):
        taken = [inbox.post(events.Tick(at)) for at in (1.0, 2.0, 3.0)]
        await asyncio.gather(*taken)
    assert lengths == [3, 3, 3]
    assert [event.at for event in scheduler.taken] == [1.0, 2.0, 3.0]


async def test_time_never_goes_back(tmp_path: Path) -> None:
    async with running(tmp_path, lambda _: []) as (inbox, _, scheduler):
        for at in (5.0, 3.0, 7.0):
            await inbox.post(events.Tick(at))
    assert [event.at for event in scheduler.taken] == [5.0, 5.0, 7.0]
    times = iter([9.0, 4.0, 11.0])
    clock = Clock(not_before=6.0, wall=lambda: next(times), steady=lambda: 0.0)
    assert [clock.now(), clock.now(), clock.now()] == [9.0, 9.0, 11.0]


def test_time_goes_on_while_the_wall_clock_is_behind() -> None:
    # Given a hub whose clock was set back by an hour while it was down
    steady = iter([50.0, 50.5, 52.0])
    clock = Clock(not_before=4600.0, wall=lambda: 1000.0, steady=lambda: next(steady))
    # Then its windows end all the same
    assert [clock.now(), clock.now()] == [4600.5, 4602.0]


async def test_an_illegal_event_changes_nothing_and_stops_nothing(tmp_path: Path) -> None:
    def refuse(event: events.Event) -> list[commands.Command]:
        if event.at == 1.0:
            raise IllegalTransition("j", "no", [])
        return []

    async with running(tmp_path, refuse) as (inbox, journal, scheduler):
        await inbox.post(events.Tick(1.0))
        await inbox.post(events.Tick(2.0))
        assert journal.length() == 2
    assert len(scheduler.taken) == 2
    async with running(tmp_path, refuse) as (_, _, again):
        assert len(again.taken) == 2


STEPS: list[tuple[commands.Command, type[events.Event]]] = [
    (commands.Extract(JOB, "t"), events.StageFailed),
    (commands.Build(JOB, CandidateId("j/t0/c0"), "w", "t", "t"), events.BuildFailed),
    (commands.Compile(JOB, True, "t", "h"), events.StageFailed),
]


@pytest.mark.parametrize(("command", "outcome"), STEPS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ModelInvalid("bad"), FailureKind.MODEL_INVALID),
        (LinkerMissing("none"), FailureKind.STAGE_FAILED),
        (KeyError("oh"), FailureKind.STAGE_FAILED),
    ],
)
async def test_what_goes_wrong_in_a_step_is_an_event(
    tmp_path: Path,
    command: commands.Command,
    outcome: type[events.Event],
    error: Exception,
    kind: FailureKind,
) -> None:
    done = asyncio.Event()

    def answer(event: events.Event) -> list[commands.Command]:
        if isinstance(event, outcome):
            done.set()
        return [command] if isinstance(event, events.Tick) else []

    async def fail(_command: commands.Command) -> events.Event:
        raise error

    async with running(tmp_path, answer, works={type(command): fail}) as (inbox, _, scheduler):
        await inbox.post(events.Tick(1.0))
        await asyncio.wait_for(done.wait(), 10.0)
    failed = scheduler.taken[-1]
    assert isinstance(failed, (events.StageFailed, events.BuildFailed))
    assert failed.failure.kind is kind


async def test_a_full_disk_ends_the_hub_and_no_job(tmp_path: Path) -> None:
    async def fail(_command: commands.Command) -> events.Event:
        raise OSError(errno.ENOSPC, "No space left on device", "/blobs")

    # Given a step that cannot keep what it has made
    database = Database.open(sqlite_url(tmp_path / "hub.db"))
    inbox, journal = Inbox(Clock(wall=lambda: 100.0)), Journal(database)
    scheduler = ScriptedScheduler(only(events.Tick, commands.Extract(JOB, "t")))
    works = {commands.Extract: fail}
    runtime = Runtime(inbox, journal, scheduler, acts={}, works=works, recall={})
    inbox.post(events.Tick(1.0))
    # When the hub runs, then it ends, and of a failed step nothing is written
    with pytest.raises(DiskUnusable, match=r"/blobs: No space left on device"):
        await asyncio.wait_for(runtime.run(), 10.0)
    assert [type(event) for event in journal.events()] == [events.Tick]
    database.close()


async def test_a_command_that_cannot_be_performed_stops_nothing(tmp_path: Path) -> None:
    def broken(_command: commands.Command) -> None:
        raise RuntimeError("broken")

    acts = {commands.Report: broken}
    async with running(tmp_path, only(events.Tick, commands.Report(JOB)), acts=acts) as (inbox, journal, _):
        await inbox.post(events.Tick(1.0))
        await inbox.post(events.Tick(2.0))
        assert journal.length() == 2


async def test_the_hub_wakes_when_it_was_asked_to(tmp_path: Path) -> None:
    woken = asyncio.Event()

    def answer(event: events.Event) -> list[commands.Command]:
        if isinstance(event, events.HubStarted):
            return [commands.WakeAt(5000.0), commands.WakeAt(100.01)]
        woken.set()
        return []

    async with running(tmp_path, answer) as (inbox, _, scheduler):
        await inbox.post(events.HubStarted(100.0, 1))
        await asyncio.wait_for(woken.wait(), 10.0)
    assert [type(event) for event in scheduler.taken] == [events.HubStarted, events.Tick]


async def test_an_event_that_is_refused_does_not_keep_the_hub_from_waking(tmp_path: Path) -> None:
    woken = asyncio.Event()

    def answer(event: events.Event) -> list[commands.Command]:
        if isinstance(event, events.DeviceLost):
            raise IllegalTransition("local/box", "no", [])
        if isinstance(event, events.Tick):
            woken.set()
        return [commands.WakeAt(100.01)] if isinstance(event, events.HubStarted) else []

    async with running(tmp_path, answer) as (inbox, _, _):
        inbox.post(events.HubStarted(100.0, 1))
        inbox.post(events.DeviceLost(100.0, DeviceId("local/box")))
        await asyncio.wait_for(woken.wait(), 10.0)
        assert woken.is_set()


async def test_a_fold_only_recalls(tmp_path: Path) -> None:
    report, extract = commands.Report(JOB), commands.Extract(JOB, "t")
    recalled: list[commands.Command] = []
    async with running(tmp_path, lambda _: []) as (inbox, _, _):
        await inbox.post(events.Tick(1.0))
    recall = {commands.Report: recalled.append}
    async with running(tmp_path, only(events.Tick, report, extract), recall=recall):
        assert recalled == [report]


# --- a whole hub ------------------------------------------------------------------------------------------


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    listening = await made.device.start()
    yield made
    listening.cancel()
    await asyncio.wait({listening})


async def test_a_job_is_tuned_verified_and_delivered(house: House) -> None:
    async with house.hub():
        await house.submit(trials=16)
        status = await house.ended()
    assert status.state is JobState.SUCCEEDED, status.failure
    assert status.trials == 16
    assert status.tuned is not None
    assert status.untuned is not None
    assert status.bundle is not None
    manifest, library = bundle.read(BlobStore(house.folder / "blobs").get(status.bundle.digest))
    assert library == b"library with 2"
    assert (manifest.job, manifest.trials, manifest.records, manifest.device) == (JOB, 16, 2, "local/box")
    assert manifest.latency.tuned == status.tuned.median
    assert manifest.latency.untuned == status.untuned.median


async def test_the_search_is_told_what_was_tried_and_the_cost_model_learns_each_record_once(
    house: House,
) -> None:
    async with house.hub():
        await house.submit(trials=32)
        await house.ended()
    last = house.compute.asked("select")[-1]
    assert len(last[2]) > 0, "no parents"
    assert len(last[6]) > 0, "nothing seen"
    learned = [len(samples) for samples, _ in house.compute.asked("update")]
    assert sum(learned) == 32
    models = [previous for _, previous in house.compute.asked("update")]
    assert models[0] is None
    assert None not in models[1:]


async def test_a_whole_model_is_given_more_time_than_a_kernel(house: House) -> None:
    async with house.hub():
        await house.submit(trials=8)
        await house.ended()
    granted = [sent.message for sent in house.broker.sent(WindowGrant)]
    limits = {grant.epoch: grant.measure.timeout_s for grant in granted if isinstance(grant, WindowGrant)}
    pushed = {push.epoch: push.model for push in house.device.pushed}
    assert {(pushed[epoch], limit) for epoch, limit in limits.items()} == {(False, 10.0), (True, 30.0)}


async def test_every_message_of_the_device_is_acknowledged(house: House) -> None:
    async with house.hub():
        await house.submit(trials=8)
        await house.ended()
    assert set(house.device.reported) <= house.device.acked


async def test_a_second_job_with_a_known_objective_never_starts_searching(house: House) -> None:
    async with house.hub():
        await house.submit(trials=8)
        await house.ended()
        searched = len(house.compute.asked("select"))
        await house.submit(trials=8, objective=1e6, job="again")
        status = await house.ended("again")
    assert status.state is JobState.SUCCEEDED
    assert status.trials == 0
    assert len(house.compute.asked("select")) == searched


async def test_a_job_that_was_tuned_before_answers_without_a_trial_unless_told_to_tune_again(
    house: House,
) -> None:
    async with house.hub():
        await house.submit(trials=8)
        await house.ended()
        searched = len(house.compute.asked("select"))
        await house.submit(trials=8, job="same")
        same = await house.ended("same")
        assert len(house.compute.asked("select")) == searched
        await house.submit(trials=8, job="again", again=True)
        again = await house.ended("again")
        await house.submit(trials=80, job="more")
        more = await house.ended("more")
    assert (same.state, same.trials) == (JobState.SUCCEEDED, 0)
    assert same.stopped == "earlier jobs have tried as much"
    assert again.trials == 8
    assert more.trials > 8


async def test_the_search_is_told_what_was_good_for_similar_operators(house: House) -> None:
    async with house.hub():
        await house.submit(trials=32)
        await house.ended()
    hints = {(call[0], hint) for call in house.compute.asked("select") for hint in call[7]}
    assert hints
    assert not [hint for workload, hint in hints if hint.startswith(workload)]


async def test_two_jobs_of_one_model_build_and_measure_no_program_twice(house: House) -> None:
    house.compute.instead["select"] = fixed_space
    async with house.hub():
        await house.submit(trials=16, again=True)
        await house.submit(trials=16, again=True, job="twin")
        first, twin = await house.ended(), await house.ended("twin")
    built = [trace for _, trace, _ in house.compute.asked("build")]
    assert len(built) == len(set(built)) == 32
    assert (first.trials, twin.trials) == (16, 16)
    kernels = [push.blob for push in house.device.pushed if not push.model]
    assert len(kernels) == len(set(kernels)) == 32


def fixed_space(
    workload: bytes,
    _target: str,
    _tried: object,
    _model: object,
    count: int,
    _seed: int,
    seen: frozenset[str],
    _hints: object,
) -> tuple[Proposal, ...]:
    """Propose the first programs of a space that have not been seen, whatever the seed."""
    traces = (b"%b number %d" % (workload, number) for number in range(100))
    free = [trace for trace in traces if digest_of(trace) not in seen]
    return tuple(Proposal(trace, digest_of(trace), b"f", None) for trace in free[:count])


async def test_kernels_that_cannot_be_built_cost_themselves_and_are_not_proposed_again(house: House) -> None:
    def build(workload: bytes, trace: bytes, target: str) -> object:
        if trace.endswith(b"1"):
            return Failure(kind=FailureKind.BUILD_ERROR, detail="no")
        return FakeCompute.build(house.compute, workload, trace, target)

    house.compute.instead["build"] = build
    async with house.hub():
        await house.submit(trials=24)
        status = await house.ended()
    assert status.state is JobState.SUCCEEDED, status.failure
    assert status.failed_trials > 0
    failed = {digest_of(trace) for _, trace, _ in house.compute.asked("build") if trace.endswith(b"1")}
    assert failed & house.compute.asked("select")[-1][6]


async def test_a_model_that_cannot_be_extracted_fails_the_job_with_the_reason(house: House) -> None:
    def extract(*_arguments: object) -> object:
        raise ModelInvalid("The model has operators that are not supported: Foo.")

    house.compute.instead["extract"] = extract
    async with house.hub():
        await house.submit()
        status = await house.ended()
    assert status.state is JobState.FAILED
    assert status.failure == Failure(
        kind=FailureKind.MODEL_INVALID, detail="The model has operators that are not supported: Foo."
    )


async def test_presence_is_announced_and_taken_back(house: House) -> None:
    async with house.hub() as hub:
        await house.broker.wait_for(HubState)
        session = hub.identity.session
    states = [decoded.message for decoded in house.broker.sent(HubState)]
    assert [getattr(state, "status", None) for state in states] == ["online", "offline"]
    assert {getattr(state, "session", None) for state in states} == {session}
    async with house.hub() as hub:
        assert hub.identity.session > session


@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize("snapshot", [True, False])
async def test_a_job_goes_on_after_a_restart_and_nothing_acknowledged_is_lost(
    house: House, monkeypatch: pytest.MonkeyPatch, killed: bool, snapshot: bool
) -> None:
    monkeypatch.setattr(keeper, "WORTHWHILE", 1 if snapshot else 10**6)
    async with house.hub(killed=killed):
        await house.submit(trials=24)
        await house.broker.wait_for(JobAccepted)
        await house.broker.wait_for(KernelResult, 10)
        house.device.paused.clear()
    acked = set(house.device.acked)
    before = len(house.journal())
    kept = [event for event in house.journal() if isinstance(event, events.Measured)]
    assert len(kept) >= len(acked & set(house.device.reported))
    assert house.snapshots() == ([before] if snapshot else [])
    house.device.paused.set()
    async with house.hub():
        status = await house.ended()
    assert status.state is JobState.SUCCEEDED, status.failure
    assert status.trials == 24
    journal = house.journal()
    assert isinstance(journal[before], events.HubStarted)
    assert journal[before] == events.HubStarted(
        journal[before].at, 2, *(RULES.policy, RULES.batch, RULES.window_s)
    )
    database = Database.read(house.folder / "hub.db")
    workloads = [digest_of(b"workload 0"), digest_of(b"workload 1")]
    hardware = house_hardware(journal)
    tried = [known for workload in workloads for known in Records(database).tried(hardware, workload)]
    database.close()
    assert len(tried) == 24 - status.failed_trials


def house_hardware(journal: list[events.Event]) -> str:
    """The name of the fake box's kind, as the scheduler spells it."""
    scheduler = RULES.scheduler()
    made = [command for event in journal for command in scheduler.step(event)]
    return next(command.hardware for command in made if isinstance(command, commands.Select))


async def test_a_journal_tells_its_stories(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    async with house.hub():
        await house.submit(trials=8)
        await house.ended()
    folded = replay.fold(house.folder)
    assert folded.refused == []
    assert folded.events == len(house.journal())
    assert "SUCCEEDED" in folded.story(JOB).lines[-1].upper()
    assert any(" c0: " in line for line in folded.story(f"{JOB}/t0").lines)
    assert [report.device for report in folded.devices()] == ["local/box"]

    replay.print_overview(folded, as_json=False)
    replay.print_stories([folded.story("local/box")], as_json=False)
    shown = capsys.readouterr().out
    assert "succeeded" in shown
    assert "DeviceSeen" in shown
    replay.print_overview(folded, as_json=True)
    assert json.loads(capsys.readouterr().out)["jobs"][0]["job"] == JOB

    with pytest.raises(InputInvalid, match=r"tells nothing of 'x'; its jobs: j; its devices: local/box"):
        folded.story("x")


async def test_a_journal_goes_on_by_the_rules_it_was_begun_with(house: House) -> None:
    async with house.hub():
        await house.submit(trials=8)
        await house.ended()
    database = Database.read(house.folder / "hub.db")
    assert began(Journal(database)) == RULES
    database.close()
    empty = Database.open(sqlite_url(house.folder / "empty.db"))
    assert began(Journal(empty)) is None
    empty.close()
    with pytest.raises(InputInvalid, match="is empty"):
        replay.fold(house.folder / "empty.db")
