"""The real scheduler on a simulated clock: compute slots that take time, boxes that judge their windows.

Stage times, jobs, boxes and faults are parameters, so that the same simulator serves tests and benchmarks.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from time import thread_time

from resonator.failures import Failure, FailureKind
from resonator.ids import CandidateId, DeviceId, JobId, candidate_id, task_id
from resonator.jobspec import Measure, TargetSpec
from resonator_hub.scheduler import Knobs, Scheduler
from resonator_hub.scheduler import commands as c
from resonator_hub.scheduler import events as e

MEASURE = Measure()


def blob(text: str) -> str:
    """A digest that stands for the blob of that name."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Stages:
    """Mean seconds of each stage; `spread` is the relative standard deviation around them (0: exact)."""

    extract: float = 5.0
    select: float = 8.0
    build: float = 0.3
    update: float = 0.5
    compile: float = 10.0
    deliver: float = 0.5
    profile: float = 0.4
    model: float = 3.0
    spread: float = 0.0


@dataclass(frozen=True)
class Faults:
    """How often things go wrong: shares of kernels or windows, and mean seconds between losses of a box."""

    dirty: float = 0.0
    refused: float = 0.0
    kernel: float = 0.0
    build: float = 0.0
    loss_every_s: float | None = None
    outage_s: float = 60.0


@dataclass
class BoxWindow:
    """What a box holds while it serves a window."""

    epoch: int
    queue: list[c.Profile] = field(default_factory=list)
    current: c.Profile | None = None
    ending: str | None = None


@dataclass
class Box:
    """A simulated device, the judge of its own windows."""

    id: DeviceId
    labels: tuple[tuple[str, str], ...]
    kind: str = "cpu"
    session: int = 1
    epoch: int = 0
    online: bool = True
    window: BoxWindow | None = None
    busy_s: float = 0.0
    windows: int = 0


class Simulator:
    """A world for one scheduler; `run` plays it until nothing happens any more, checking as it goes."""

    def __init__(
        self,
        *,
        policy: str = "load_aware",
        knobs: Knobs | None = None,
        stages: Stages | None = None,
        faults: Faults | None = None,
        slots: int = 2,
        seed: int = 0,
        delay_s: float = 0.02,
    ) -> None:
        self.knobs = knobs or Knobs()
        self.policy = policy
        self.scheduler = Scheduler(policy, self.knobs)
        self.stages = stages or Stages()
        self.faults = faults or Faults()
        self.delay_s = delay_s
        self.random = random.Random(seed)
        self.now = 0.0
        self.boxes: dict[DeviceId, Box] = {}
        self.tasks: dict[JobId, int] = {}
        self.budgets: dict[JobId, int] = {}
        self.selected: dict[JobId, int] = {}
        self.records: dict[CandidateId, int] = {}
        self.record_of: dict[JobId, int] = {}
        self.ended: dict[JobId, float] = {}
        self.epochs: dict[DeviceId, int] = {}
        self.journal: list[e.Event] | None = None
        self.steps = 0
        self.scheduler_s = 0.0
        self.compute_busy_s = 0.0
        self._digest = hashlib.sha256()
        self._future: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._wake: float | None = None
        self._digesting = True
        self.at(0.0, lambda: self.feed(e.HubStarted(self.now, slots)))

    # --- the world's plan -----------------------------------------------------------------------------

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Have something happen at `time`."""
        self._count += 1
        heapq.heappush(self._future, (time, self._count, action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Have something happen in a while."""
        self.at(self.now + seconds, action)

    def add_box(self, name: str, *, labels: tuple[tuple[str, str], ...] = (), at: float = 0.0) -> Box:
        """A box joins."""
        box = self.boxes[DeviceId(name)] = Box(DeviceId(name), labels)
        self.at(at, lambda: self._seen(box))
        if self.faults.loss_every_s is not None:
            self.at(at + self.random.expovariate(1 / self.faults.loss_every_s), lambda: self._lose(box))
        return box

    def add_job(
        self,
        name: str,
        *,
        tasks: int = 3,
        trials: int = 64,
        at: float = 0.0,
        target: TargetSpec | None = None,
        priority: int = 5,
        time_s: float | None = None,
    ) -> JobId:
        """A job is submitted."""
        job = JobId(name)
        self.tasks[job], self.budgets[job] = tasks, trials
        order = e.JobOrder(
            name=name,
            target=target or TargetSpec(kind="cpu"),
            trials=trials,
            measure=MEASURE,
            time_s=time_s,
            priority=priority,
            seed=len(self.tasks),
        )
        self.at(at, lambda: self.feed(e.JobSubmitted(self.now, job, order)))
        return job

    # --- time -----------------------------------------------------------------------------------------

    def run(self, *, until: float = float("inf"), all_jobs: bool = True) -> None:
        """Play until every job has ended (or, if not `all_jobs`, until `until`)."""
        while self._future and self._future[0][0] <= until:
            if all_jobs and len(self.ended) == len(self.budgets):
                return
            self.now, _, action = heapq.heappop(self._future)
            action()

    def feed(self, event: e.Event) -> None:
        """Give the scheduler an event and carry out what it says."""
        if self.journal is not None:
            self.journal.append(event)
        began = thread_time()
        commands = self.scheduler.step(event)
        self.scheduler_s += thread_time() - began
        self.steps += 1
        for command in commands:
            if self._digesting:
                self._digest.update(repr(command).encode())
            self._perform(command)

    def digest(self) -> str:
        """A digest of every command given so far."""
        return self._digest.hexdigest()

    def _draw(self, mean: float) -> float:
        if not self.stages.spread:
            return mean
        return mean * max(0.1, self.random.gauss(1.0, self.stages.spread))

    # --- compute --------------------------------------------------------------------------------------

    def _perform(self, command: c.Command) -> None:
        match command:
            case c.Extract():
                self._compute(self.stages.extract, lambda took: self._extracted(command, took))
            case c.Select():
                self._compute(self.stages.select, lambda took: self._selected(command, took))
            case c.Build():
                self._compute(self.stages.build, lambda took: self._built(command, took))
            case c.Update():
                self._compute(
                    self.stages.update,
                    lambda took: e.ModelUpdated(self.now, command.job, command.task, command.round, took),
                )
            case c.Compile():
                name = blob(f"{command.job} {command.tuned}")
                self._compute(
                    self.stages.compile,
                    lambda took: e.ModelCompiled(self.now, command.job, command.tuned, name, 9, took),
                )
            case c.Deliver():
                self._compute(
                    self.stages.deliver,
                    lambda took: e.BundleDelivered(self.now, command.job, command.bundle, 10, took),
                )
            case c.OpenWindow():
                assert command.epoch > self.epochs.get(command.device, 0), "epochs grow"
                self.epochs[command.device] = command.epoch
                self.after(self.delay_s, lambda: self._granted(self.boxes[command.device], command))
            case c.Profile():
                self.after(self.delay_s, lambda: self._pushed(self.boxes[command.device], command))
            case c.CloseWindow():
                self.after(self.delay_s, lambda: self._asked(self.boxes[command.device], command.epoch))
            case c.Record():
                self._recorded(command)
            case c.Report(ended=True):
                assert command.job not in self.ended, "a job ends once"
                self.ended[command.job] = self.now
            case c.WakeAt():
                self._wake_at(command.at)

    def _compute(self, mean: float, answer: Callable[[float], e.Event]) -> None:
        took = self._draw(mean)
        self.compute_busy_s += took
        self.after(took, lambda: self.feed(answer(took)))

    def _wake_at(self, time: float) -> None:
        if self._wake is None or time < self._wake:
            self._wake = time
            self.at(max(time, self.now), lambda: self._tick(time))

    def _tick(self, time: float) -> None:
        if self._wake == time:
            self._wake = None
            self.feed(e.Tick(self.now))

    def _extracted(self, command: c.Extract, took: float) -> e.Event:
        found = tuple(
            e.TaskFound(task_id(command.job, n), f"op{n}", blob(f"workload {n}"), 1 + n % 3, 1e6 * (n + 1))
            for n in range(self.tasks[command.job])
        )
        return e.TasksExtracted(self.now, command.job, found, took)

    def _selected(self, command: c.Select, took: float) -> e.Event:
        candidates = tuple(
            e.CandidateFound(
                candidate_id(command.task, command.first + n),
                blob(f"trace {command.task} {command.first + n}"),
                blob("features"),
            )
            for n in range(command.count)
        )
        self.selected[command.job] = self.selected.get(command.job, 0) + len(candidates)
        assert self.selected[command.job] <= self.budgets[command.job], "budgets hold"
        return e.CandidatesSelected(self.now, command.job, command.task, command.round, candidates, took)

    def _built(self, command: c.Build, took: float) -> e.Event:
        if self.random.random() < self.faults.build:
            failure = Failure(kind=FailureKind.BUILD_ERROR, detail="does not compile")
            return e.BuildFailed(self.now, command.job, command.candidate, failure, took)
        return e.KernelBuilt(self.now, command.job, command.candidate, command.trace, 1000, took)

    def _recorded(self, command: c.Record) -> None:
        candidate = command.result.candidate
        assert candidate not in self.records, "a result is recorded once"
        self.records[candidate] = self.records.get(candidate, 0) + 1
        job = command.result.job
        self.record_of[job] = self.record_of.get(job, 0) + 1

    # --- boxes ----------------------------------------------------------------------------------------

    def _seen(self, box: Box) -> None:
        box.online = True
        offer = e.Offer(box.kind, f'{{"kind": "{box.kind}"}}')
        self.feed(
            e.DeviceSeen(self.now, box.id, box.session, box.epoch, "simulated CPU", (offer,), box.labels)
        )

    def _lose(self, box: Box) -> None:
        if not box.online:
            return
        box.online, box.window = False, None
        box.session += 1
        assert self.faults.loss_every_s is not None
        outage = self.random.expovariate(1 / self.faults.outage_s)
        again = self.random.expovariate(1 / self.faults.loss_every_s)
        self.after(outage, lambda: self._seen(box))
        self.after(outage + again, lambda: self._lose(box))
        self.feed(e.DeviceLost(self.now, box.id, certain=self.random.random() < 0.5))

    def _tell(self, box: Box, event: Callable[[], e.Event]) -> None:
        session = box.session

        def deliver() -> None:
            if box.online and box.session == session:
                self.feed(event())

        self.after(self.delay_s, deliver)

    def _granted(self, box: Box, command: c.OpenWindow) -> None:
        if not box.online:
            return
        if command.epoch <= box.epoch or self.random.random() < self.faults.refused:
            highest = box.epoch
            self._tell(
                box, lambda: e.WindowRefused(self.now, box.id, command.epoch, highest, "not in the mood")
            )
            return
        assert box.window is None, f"two windows at once on {box.id}"
        box.epoch, box.windows = command.epoch, box.windows + 1
        box.window = window = BoxWindow(command.epoch)
        self._tell(box, lambda: e.WindowOpened(self.now, box.id, command.epoch))
        self.after(command.duration_s, lambda: self._end(box, window, "expired"))

    def _asked(self, box: Box, epoch: int) -> None:
        if box.window is not None and box.window.epoch == epoch:
            self._end(box, box.window, "asked")

    def _end(self, box: Box, window: BoxWindow, reason: str) -> None:
        if box.window is not window or window.ending is not None:
            return
        window.ending = reason
        window.queue.clear()
        if window.current is None:
            self._closed(box, window)

    def _closed(self, box: Box, window: BoxWindow) -> None:
        box.window = None
        reason = window.ending or "asked"
        self._tell(box, lambda: e.WindowClosed(self.now, box.id, window.epoch, reason))

    def _pushed(self, box: Box, command: c.Profile) -> None:
        window = box.window
        if window is None or window.epoch != command.epoch or window.ending is not None:
            return
        window.queue.append(command)
        if window.current is None:
            self._measure(box, window)

    def _measure(self, box: Box, window: BoxWindow) -> None:
        if not window.queue:
            return
        command = window.current = window.queue.pop(0)
        took = self._draw(self.stages.model if command.model else self.stages.profile)
        self.after(took, lambda: self._measured(box, window, command, took))

    def _measured(self, box: Box, window: BoxWindow, command: c.Profile, took: float) -> None:
        if box.window is not window:
            return
        box.busy_s += took
        window.current = None
        result = self._result(box, command, took)
        self._tell(box, lambda: result)
        if window.ending is not None:
            self._closed(box, window)
        else:
            self._measure(box, window)

    def _result(self, box: Box, command: c.Profile, took: float) -> e.Measured:
        failure, chance = None, self.random.random()
        if chance < self.faults.dirty:
            failure = Failure(kind=FailureKind.DEVICE_DIRTY, detail="something else ran")
        elif chance < self.faults.dirty + self.faults.kernel and not command.model:
            failure = Failure(kind=FailureKind.KERNEL_CRASH, detail="signal 11")
        latency = 1e-3 * self.random.lognormvariate(0.0, 0.5)
        return e.Measured(
            self.now,
            box.id,
            command.epoch,
            command.job,
            command.candidate,
            () if failure else (latency, latency * 1.01),
            failure,
            error=1e-6 if command.model and failure is None else None,
            device_time_s=took,
        )
