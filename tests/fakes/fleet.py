"""A hub's shell and its boxes in the hands of a test: every answer is given when the test says so."""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

from resonator.failures import Failure, FailureKind
from resonator.ids import CandidateId, DeviceId, JobId, candidate_id, task_id
from resonator.jobspec import Measure, TargetSpec
from resonator.messages import JobStatus
from resonator_hub.scheduler import Knobs, Scheduler
from resonator_hub.scheduler import commands as c
from resonator_hub.scheduler import events as e

BLOB = hashlib.sha256(b"").hexdigest()
BOX = DeviceId("lab/a")
JOB = JobId("job")
CommandT = TypeVar("CommandT")


class Play:
    """One scheduler; `said` are its commands since the test last looked."""

    def __init__(self, *, policy: str = "load_aware", knobs: Knobs | None = None, slots: int = 8) -> None:
        self.scheduler = Scheduler(policy, knobs)
        self.now = 0.0
        self.said: list[c.Command] = []
        self.feed(e.HubStarted(self.now, slots))

    def feed(self, event: e.Event) -> list[c.Command]:
        """Give an event to the scheduler and keep what it says."""
        commands = self.scheduler.step(event)
        self.said += commands
        return commands

    def take(self, kind: type[CommandT]) -> list[CommandT]:
        """Take out the commands of one kind said so far."""
        taken = [command for command in self.said if isinstance(command, kind)]
        self.said = [command for command in self.said if not isinstance(command, kind)]
        return taken

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.feed(e.Tick(self.now))

    def status(self, job: JobId = JOB) -> JobStatus:
        """Return a job's status."""
        return self.scheduler.status(job)

    # --- boxes ----------------------------------------------------------------------------------------

    def box(self, name: DeviceId = BOX, *, kind: str = "cpu", **changes: Any) -> None:
        """A box is seen."""
        fields: dict[str, Any] = {"session": 1, "epoch": 0, "cpu_model": "x", "labels": (("model", "el300"),)}
        fields.update(changes)
        self.feed(e.DeviceSeen(self.now, name, offers=(e.Offer(kind, "{}"),), **fields))

    def open(self, window: c.OpenWindow) -> None:
        """A box accepts its window."""
        self.feed(e.WindowOpened(self.now, window.device, window.epoch))

    def closed(self, device: DeviceId, epoch: int) -> None:
        """A window has ended on its box."""
        self.feed(e.WindowClosed(self.now, device, epoch, "asked"))

    def result(
        self, pushed: c.Profile, latency: float = 1e-3, *, kind: FailureKind | None = None, **changes: Any
    ) -> e.Measured:
        """A box's answer to a kernel."""
        failure = Failure(kind=kind) if kind else None
        return e.Measured(
            self.now,
            pushed.device,
            pushed.epoch,
            pushed.job,
            pushed.candidate,
            () if failure else (latency,),
            failure,
            device_time_s=0.2,
            **changes,
        )

    # --- jobs -----------------------------------------------------------------------------------------

    def submit(self, job: JobId = JOB, *, trials: int = 8, **changes: Any) -> None:
        """A job is submitted."""
        target = changes.pop("target", TargetSpec(kind="cpu"))
        self.feed(e.JobSubmitted(self.now, job, e.JobOrder(job, target, trials, Measure(), **changes)))

    def extract(
        self,
        job: JobId = JOB,
        *,
        tasks: int = 1,
        known_s: float | None = None,
        settled: tuple[int, ...] = (),
    ) -> None:
        """A job's model turns out to have so many operators, some of which were tuned before."""
        found = tuple(
            e.TaskFound(task_id(job, n), f"op{n}", BLOB, 1, 10.0 * (n + 1), known_s, n in settled)
            for n in range(tasks)
        )
        self.feed(e.TasksExtracted(self.now, job, found, 1.0))

    def select(self, command: c.Select, count: int | None = None) -> list[CandidateId]:
        """A selection proposes as many candidates as it was asked for, or fewer."""
        names = [
            candidate_id(command.task, command.first + n)
            for n in range(command.count if count is None else count)
        ]
        found = tuple(e.CandidateFound(name, BLOB, BLOB) for name in names)
        self.feed(e.CandidatesSelected(self.now, command.job, command.task, command.round, found, 1.0))
        return names

    def build(self, command: c.Build) -> None:
        """A candidate becomes a kernel."""
        self.feed(e.KernelBuilt(self.now, command.job, command.candidate, BLOB, 100, 0.3))

    def compile(self, command: c.Compile) -> None:
        """A model is compiled."""
        self.feed(e.ModelCompiled(self.now, command.job, command.tuned, BLOB, 100, 2.0))

    def tuning(self, job: JobId = JOB, *, tasks: int = 1, **order: Any) -> list[c.Profile]:
        """Take a job to its first window with the first round pushed; the baseline stays compiling."""
        self.submit(job, **order)
        self.extract(job, tasks=tasks)
        for selection in self.take(c.Select):
            self.select(selection)
        for build in self.take(c.Build):
            self.build(build)
        for window in self.take(c.OpenWindow):
            self.open(window)
        return self.take(c.Profile)
