"""What to do next: the scheduler's only answer. Frozen, complete in themselves, safe to perform twice."""

from __future__ import annotations

from dataclasses import dataclass

from resonator.ids import CandidateId, DeviceId, JobId, TaskId
from resonator_hub.scheduler.events import Measured


@dataclass(frozen=True, slots=True)
class Extract:
    """Read a job's model and cut it into tasks for `target` (compute), told what `hardware` has on record."""

    job: JobId
    target: str
    hardware: str = ""


@dataclass(frozen=True, slots=True)
class Select:
    """Propose `count` candidates for a task (compute).

    `hardware` names the kind of box, whose records and cost model guide the search; `exclude` are the traces
    (by digest) of this task that are under way; `first` numbers the round's first candidate.
    """

    job: JobId
    task: TaskId
    round: int
    workload: str
    target: str
    hardware: str
    count: int
    first: int
    seed: int
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Build:
    """Make a kernel of a candidate (compute); workload and trace by digest."""

    job: JobId
    candidate: CandidateId
    workload: str
    trace: str
    target: str


@dataclass(frozen=True, slots=True)
class Update:
    """Teach the cost model of a kind of hardware the results of one round (compute)."""

    job: JobId
    task: TaskId
    round: int
    workload: str
    target: str
    hardware: str


@dataclass(frozen=True, slots=True)
class Compile:
    """Compile the whole model, with the best records on this hardware (`tuned`) or with none (compute).

    `settles` says that the job's search has come to its own end: another such job would try no more.
    """

    job: JobId
    tuned: bool
    target: str
    hardware: str
    settles: bool = False


@dataclass(frozen=True, slots=True)
class Deliver:
    """Pack the compiled model with the evidence of its speed (compute)."""

    job: JobId
    bundle: str
    untuned: Measured | None
    tuned: Measured
    trials: int


@dataclass(frozen=True, slots=True)
class OpenWindow:
    """Grant a device to a job for `duration_s`, fenced by `epoch`; for its whole `model`, or its kernels."""

    device: DeviceId
    job: JobId
    epoch: int
    duration_s: float
    model: bool = False


@dataclass(frozen=True, slots=True)
class Profile:
    """Stage a kernel (blob by digest) on a device and have it measured in window `epoch`.

    A candidate slower than `race_s` in its first short run needs no full measurement. `model` says that the
    blob is a bundle whose outputs are compared with the job's reference. `flops` are the floating-point
    operations of one run, 0 where that is not known.
    """

    device: DeviceId
    epoch: int
    job: JobId
    candidate: CandidateId
    blob: str
    size: int
    target_kind: str = "cpu"
    race_s: float | None = None
    model: bool = False
    flops: float = 0.0


@dataclass(frozen=True, slots=True)
class CloseWindow:
    """End a window; its kernels without a result are the scheduler's again."""

    device: DeviceId
    epoch: int


@dataclass(frozen=True, slots=True)
class Record:
    """Keep a result that was asked for and taken, once."""

    result: Measured
    task: TaskId
    workload: str
    target: str
    hardware: str
    trace: str
    features: str


@dataclass(frozen=True, slots=True)
class Report:
    """A job's public status has changed (`Scheduler.status`); `ended` when for the last time."""

    job: JobId
    ended: bool = False


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send a `Tick` at this time, unless another event comes first."""

    at: float


Command = (
    Extract
    | Select
    | Build
    | Update
    | Compile
    | Deliver
    | OpenWindow
    | Profile
    | CloseWindow
    | Record
    | Report
    | WakeAt
)
