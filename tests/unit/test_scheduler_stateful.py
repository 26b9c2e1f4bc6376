"""Hypothesis drives the real scheduler through a world that loses, repeats and reorders what is said."""

from __future__ import annotations

import hashlib

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resonator.failures import Failure, FailureKind
from resonator.ids import CandidateId, DeviceId, JobId, candidate_id, task_id
from resonator.jobspec import Measure, TargetSpec
from resonator_hub.scheduler import Knobs, Scheduler
from resonator_hub.scheduler import commands as c
from resonator_hub.scheduler import events as e

DEVICES = (DeviceId("lab/a"), DeviceId("lab/b"))
SLOTS = 2
KNOBS = Knobs(batch=4, least_batch=2, window_s=20.0, quantum_s=5.0, longest_rest_s=30.0, stage_s=2.0)
BLOB = hashlib.sha256(b"").hexdigest()
COMPUTE = (c.Extract, c.Select, c.Build, c.Update, c.Compile, c.Deliver)


class Box:
    """A device that judges its windows; it holds kernels of one window at a time."""

    def __init__(self, name: DeviceId) -> None:
        self.name = name
        self.session = 1
        self.epoch = 0
        self.window: int | None = None
        self.staged: list[c.Profile] = []

    def take(self, command: c.Command, now: float) -> list[e.Event]:
        """Take a message of the hub and return what is said in answer."""
        if isinstance(command, c.OpenWindow):
            if command.epoch <= self.epoch:
                return [e.WindowRefused(now, self.name, command.epoch, self.epoch, "seen before")]
            said: list[e.Event] = []
            if self.window is not None:
                said.append(e.WindowClosed(now, self.name, self.window, "superseded"))
            self.epoch = self.window = command.epoch
            self.staged = []
            return [*said, e.WindowOpened(now, self.name, command.epoch)]
        if isinstance(command, c.Profile) and command.epoch == self.window:
            self.staged.append(command)
        if isinstance(command, c.CloseWindow) and command.epoch == self.window:
            self.window, self.staged = None, []
            return [e.WindowClosed(now, self.name, command.epoch, "asked")]
        return []


class SchedulerInRoughWeather(RuleBasedStateMachine):
    """Jobs come and go, boxes too; the hub may restart at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.scheduler = Scheduler(knobs=KNOBS)
        self.twin: Scheduler | None = None
        self.journal: list[e.Event] = []
        self.asked: list[c.Command] = []
        self.down: list[c.Command] = []
        self.up: list[e.Event] = []
        self.boxes = {name: Box(name) for name in DEVICES}
        self.jobs: dict[JobId, int] = {}
        self.selected: dict[JobId, int] = {}
        self.records: list[CandidateId] = []
        self.granted: dict[DeviceId, int] = {}
        self.leases: dict[DeviceId, tuple[int, float]] = {}
        self.drained: set[DeviceId] = set()
        self.wake: float | None = None

    # --- the hub's shell ------------------------------------------------------------------------------

    def feed(self, event: e.Event) -> None:
        self.journal.append(event)
        self.forget_leases(event)
        commands = self.scheduler.step(event)
        if self.twin is not None:
            assert self.twin.step(event) == commands, "what was saved and restored decides the same"
        for command in commands:
            self.perform(command)

    def forget_leases(self, event: e.Event) -> None:
        if isinstance(event, e.HubStarted):
            self.leases.clear()
        for name, (epoch, until) in list(self.leases.items()):
            ended = isinstance(event, e.WindowClosed | e.WindowRefused) and event.epoch == epoch
            gone = isinstance(event, e.DeviceLost | e.DeviceSeen) and event.device == name
            opened = isinstance(event, e.WindowOpened) and event.device == name and event.epoch == epoch
            if gone or (ended and getattr(event, "device", None) == name) or self.now >= until:
                del self.leases[name]
            elif opened:
                self.leases[name] = (epoch, self.now + KNOBS.window_s)

    def perform(self, command: c.Command) -> None:
        if isinstance(command, COMPUTE):
            self.asked.append(command)
            assert len(self.asked) <= SLOTS, "no more steps than slots"
        elif isinstance(command, c.OpenWindow):
            assert command.device not in self.leases, "one window at a time"
            assert command.device not in self.drained, "what is drained is granted to nobody"
            assert command.epoch > self.granted.get(command.device, 0), "epochs grow"
            self.granted[command.device] = command.epoch
            self.leases[command.device] = (command.epoch, self.now + command.duration_s)
            self.down.append(command)
        elif isinstance(command, c.Profile | c.CloseWindow):
            assert command.epoch == self.granted[command.device], "only the last window is spoken of"
            self.down.append(command)
        elif isinstance(command, c.Record):
            assert command.result.candidate not in self.records, "a result counts once"
            self.records.append(command.result.candidate)
        elif isinstance(command, c.WakeAt):
            self.wake = command.at

    def answer(self, command: c.Command, *, fails: bool) -> e.Event:
        failure = Failure(kind=FailureKind.BUILD_ERROR, detail="no")
        match command:
            case c.Extract():
                found = tuple(e.TaskFound(task_id(command.job, n), f"op{n}", BLOB, 1, 10.0) for n in range(2))
                return e.TasksExtracted(self.now, command.job, found, 1.0)
            case c.Select():
                if fails:
                    return e.StageFailed(
                        self.now, command.job, "select", failure, command.task, command.round
                    )
                candidates = tuple(
                    e.CandidateFound(candidate_id(command.task, command.first + n), BLOB, BLOB)
                    for n in range(command.count)
                )
                self.selected[command.job] = self.selected.get(command.job, 0) + len(candidates)
                assert self.selected[command.job] <= self.jobs[command.job], "budgets hold"
                return e.CandidatesSelected(
                    self.now, command.job, command.task, command.round, candidates, 1.0
                )
            case c.Build():
                if fails:
                    return e.BuildFailed(self.now, command.job, command.candidate, failure, 0.1)
                return e.KernelBuilt(self.now, command.job, command.candidate, BLOB, 10, 0.1)
            case c.Update():
                return e.ModelUpdated(self.now, command.job, command.task, command.round, 0.1)
            case c.Compile():
                return e.ModelCompiled(self.now, command.job, command.tuned, BLOB, 10, 1.0)
            case c.Deliver():
                return e.BundleDelivered(self.now, command.job, command.bundle, 10, 0.1)
        raise AssertionError(f"{command} is no step")

    # --- what happens ---------------------------------------------------------------------------------

    @initialize()
    def start(self) -> None:
        self.feed(e.HubStarted(self.now, SLOTS))
        self.see(self.boxes[DEVICES[0]])

    @precondition(lambda self: len(self.jobs) < 4)
    @rule(trials=st.integers(1, 12), priority=st.integers(0, 9), hasty=st.booleans())
    def submit(self, trials: int, priority: int, hasty: bool) -> None:
        job = JobId(f"job{len(self.jobs)}")
        self.jobs[job] = trials
        order = e.JobOrder(
            job, TargetSpec(kind="cpu"), trials, Measure(), time_s=30.0 if hasty else None, priority=priority
        )
        self.feed(e.JobSubmitted(self.now, job, order))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), really=st.sampled_from([False, False, False, True]))
    def cancel(self, data: st.DataObject, really: bool) -> None:
        if really:
            self.feed(e.JobCanceled(self.now, data.draw(st.sampled_from(sorted(self.jobs)))))

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), fails=st.sampled_from([False, False, False, True]), twice=st.booleans())
    def compute(self, data: st.DataObject, fails: bool, twice: bool) -> None:
        command = self.asked.pop(data.draw(st.integers(0, len(self.asked) - 1)))
        event = self.answer(command, fails=fails)
        self.feed(event)
        if twice and event not in self.asked:
            self.feed(event)

    @precondition(lambda self: self.down)
    @rule(data=st.data(), fate=st.sampled_from(["arrives", "arrives", "arrives", "lost", "twice"]))
    def to_device(self, data: st.DataObject, fate: str) -> None:
        index = data.draw(st.integers(0, min(3, len(self.down) - 1)))
        command = self.down[index] if fate == "twice" else self.down.pop(index)
        if fate != "lost":
            self.up.extend(self.boxes[command.device].take(command, self.now))  # type: ignore[union-attr]

    @precondition(lambda self: self.up)
    @rule(data=st.data(), fate=st.sampled_from(["arrives", "arrives", "arrives", "lost", "twice"]))
    def to_hub(self, data: st.DataObject, fate: str) -> None:
        index = data.draw(st.integers(0, min(3, len(self.up) - 1)))
        event = self.up[index] if fate == "twice" else self.up.pop(index)
        if fate != "lost":
            self.feed(event)

    @precondition(lambda self: any(box.staged for box in self.boxes.values()))
    @rule(kind=st.sampled_from([None, None, None, FailureKind.DEVICE_DIRTY, FailureKind.KERNEL_CRASH]))
    def measure(self, kind: FailureKind | None) -> None:
        box = next(box for box in self.boxes.values() if box.staged)
        self.up.append(self.result(box, box.staged.pop(0), kind))

    def result(self, box: Box, command: c.Profile, kind: FailureKind | None) -> e.Measured:
        failure = Failure(kind=kind) if kind else None
        latencies = () if failure else (1e-3,)
        return e.Measured(
            self.now, box.name, command.epoch, command.job, command.candidate, latencies, failure,
            device_time_s=0.5,
        )  # fmt: skip

    @rule(name=st.sampled_from(DEVICES), certain=st.booleans())
    def lose(self, name: DeviceId, certain: bool) -> None:
        self.feed(e.DeviceLost(self.now, name, certain))

    @rule(name=st.sampled_from(DEVICES), restarted=st.booleans())
    def back(self, name: DeviceId, restarted: bool) -> None:
        box = self.boxes[name]
        if restarted:
            box.session, box.window, box.staged = box.session + 1, None, []
        self.see(box)

    @precondition(lambda self: self.scheduler.devices())
    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        name = DeviceId(data.draw(st.sampled_from([one.device for one in self.scheduler.devices()])))
        self.drained.add(name)
        self.feed(e.DeviceDrained(self.now, name, "it is moved", "lab/client/olga", "operator"))

    @precondition(lambda self: self.drained)
    @rule(data=st.data())
    def undrain(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.drained)))
        self.drained.remove(name)
        self.feed(e.DeviceUndrained(self.now, name, "lab/client/olga", "operator"))

    def see(self, box: Box, available: bool = True) -> None:
        offers = (e.Offer("cpu", "{}"),)
        self.feed(
            e.DeviceSeen(self.now, box.name, box.session, box.epoch, "cpu", offers, available=available)
        )

    @rule(seconds=st.sampled_from([0.5, 3.0, 30.0, 120.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.feed(e.Tick(self.now))

    @rule()
    def restart_hub(self) -> None:
        before = self.scheduler
        self.scheduler = Scheduler(knobs=KNOBS)
        records = []
        for event in self.journal:
            again = e.from_json(type(event).__name__, e.to_json(event))
            records += [
                one.result.candidate for one in self.scheduler.step(again) if isinstance(one, c.Record)
            ]
        assert records == self.records
        assert self.scheduler.statuses(100) == before.statuses(100)
        assert self.scheduler.devices() == before.devices()
        assert self.scheduler.save() == before.save()
        self.asked = []
        self.feed(e.HubStarted(self.now, SLOTS))

    @rule()
    def save_and_restore(self) -> None:
        """From here on a copy decides, and the original is asked whether it would decide the same."""
        saved, ended = self.scheduler.save(), list(self.scheduler.ended())
        copy = Scheduler(knobs=KNOBS)
        copy.restore(saved, ended)
        assert copy.save() == saved
        assert list(copy.ended()) == ended
        self.scheduler, self.twin = copy, self.scheduler

    # --- what always holds ----------------------------------------------------------------------------

    @invariant()
    def the_drained_are_told_from_the_others(self) -> None:
        for report in self.scheduler.devices():
            assert self.twin is None or report in self.twin.devices()
            assert (report.drained is not None) == (report.device in self.drained)
            assert report.drained is None or report.health == "maintenance"

    @invariant()
    def trials_are_within_budget_and_results_are_counted(self) -> None:
        for job, budget in self.jobs.items():
            status = self.scheduler.status(job)
            assert self.twin is None or status == self.twin.status(job)
            assert status.trials <= budget
            recorded = sum(name.startswith(f"{job}/") for name in self.records)
            assert recorded <= status.trials

    def teardown(self) -> None:
        """In a fair world with a healthy device every job ends."""
        while self.drained:
            self.feed(e.DeviceUndrained(self.now, self.drained.pop()))
        for box in self.boxes.values():
            box.session, box.window, box.staged = box.session + 1, None, []
            self.see(box)
        for _ in range(5000):
            if all(self.scheduler.status(job).state.ended for job in self.jobs):
                return
            self.go_on()
        raise AssertionError([self.scheduler.status(job) for job in self.jobs])

    def go_on(self) -> None:
        box = next((box for box in self.boxes.values() if box.staged), None)
        if self.down:
            command = self.down.pop(0)
            self.up.extend(self.boxes[command.device].take(command, self.now))  # type: ignore[union-attr]
        elif self.up:
            self.feed(self.up.pop(0))
        elif box is not None:
            self.up.append(self.result(box, box.staged.pop(0), None))
        elif self.asked:
            self.feed(self.answer(self.asked.pop(0), fails=False))
        else:
            assert self.wake is not None, "a world in which nothing will ever happen"
            self.now = max(self.now + 0.001, self.wake)
            self.feed(e.Tick(self.now))


SchedulerInRoughWeather.TestCase.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSchedulerInRoughWeather = SchedulerInRoughWeather.TestCase
