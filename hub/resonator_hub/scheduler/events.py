"""What happened: all that moves the scheduler. Frozen, timed (`at`, seconds), journalled as JSON.

The answer of a compute step bears how long it took and its processor time (`took_s`, `cpu_s`). What people
do bears who did it: `by` is the name in the certificate that the request was signed with, and `role` the role
there. Where nobody signs, `role` is empty, and `by` no more than what somebody called himself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from pydantic import TypeAdapter

from resonator.failures import Failure
from resonator.ids import CandidateId, DeviceId, JobId, TaskId
from resonator.jobspec import Measure, TargetSpec
from resonator.messages import Conditions

Stage = Literal["extract", "select", "build", "update", "compile", "deliver"]


@dataclass(frozen=True, slots=True)
class JobOrder:
    """What the scheduler must know of a job; times in seconds.

    `bundle` is set for a job without trials, that only has a bundle (by digest) measured.
    """

    name: str
    target: TargetSpec
    trials: int
    measure: Measure
    time_s: float | None = None
    objective_s: float | None = None
    priority: int = 5
    seed: int = 0
    bundle: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """One target of a device: `kind` (cpu, cuda), the exact TVM target as JSON text, its tag if any."""

    kind: str
    target: str
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class TaskFound:
    """One operator of a model: its workload by digest, how often it occurs, its floating-point operations.

    `known_s` is the best latency on record for this workload on the job's hardware, `settled` that earlier
    jobs have tried as much as this one would.
    """

    task: TaskId
    name: str
    workload: str
    weight: int
    flops: float = 0.0
    known_s: float | None = None
    settled: bool = False


@dataclass(frozen=True, slots=True)
class CandidateFound:
    """One proposed schedule: its trace and features by digest."""

    candidate: CandidateId
    trace: str
    features: str
    predicted: float | None = None


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    """A user's job was taken in."""

    at: float
    job: JobId
    order: JobOrder
    by: str = ""
    role: str = ""


@dataclass(frozen=True, slots=True)
class JobCanceled:
    """A user asked to end a job."""

    at: float
    job: JobId
    by: str = ""
    role: str = ""


@dataclass(frozen=True, slots=True)
class TasksExtracted:
    """A model was read and cut into tasks."""

    at: float
    job: JobId
    tasks: tuple[TaskFound, ...]
    took_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class CandidatesSelected:
    """Search proposed candidates for one round of a task; none when its space is exhausted."""

    at: float
    job: JobId
    task: TaskId
    round: int
    candidates: tuple[CandidateFound, ...]
    took_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class KernelBuilt:
    """A candidate became a kernel, kept as blob `kernel` of `size` bytes."""

    at: float
    job: JobId
    candidate: CandidateId
    kernel: str
    size: int
    took_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class BuildFailed:
    """A candidate could not be built."""

    at: float
    job: JobId
    candidate: CandidateId
    failure: Failure
    took_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelUpdated:
    """The cost model has learnt a round of a task."""

    at: float
    job: JobId
    task: TaskId
    round: int
    took_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelCompiled:
    """A whole model was compiled, with the best records (`tuned`) or none; `bundle` is its blob."""

    at: float
    job: JobId
    tuned: bool
    bundle: str
    size: int
    took_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class BundleDelivered:
    """The bundle with its evidence is ready to be fetched."""

    at: float
    job: JobId
    bundle: str
    size: int
    took_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StageFailed:
    """A compute step other than a build failed; `task` and `round` say which, where it has them."""

    at: float
    job: JobId
    stage: Stage
    failure: Failure
    task: TaskId | None = None
    round: int | None = None
    tuned: bool | None = None
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class DeviceSeen:
    """A device is present: new, returned or changed. `epoch` is the highest it has accepted.

    Unless `visible` it said so, but cannot be reached: the link to its site is cut.
    """

    at: float
    device: DeviceId
    session: int
    epoch: int
    cpu_model: str
    offers: tuple[Offer, ...]
    labels: tuple[tuple[str, str], ...] = ()
    available: bool = True
    visible: bool = True


@dataclass(frozen=True, slots=True)
class DeviceLost:
    """A device is gone (`certain`: it said so, or its last will did) or out of sight: its link is cut."""

    at: float
    device: DeviceId
    certain: bool = True


@dataclass(frozen=True, slots=True)
class DeviceDrained:
    """An operator keeps a device from getting further windows, until it is undrained."""

    at: float
    device: DeviceId
    reason: str = ""
    by: str = ""
    role: str = ""


@dataclass(frozen=True, slots=True)
class DeviceUndrained:
    """A drained device may be granted again."""

    at: float
    device: DeviceId
    by: str = ""
    role: str = ""


@dataclass(frozen=True, slots=True)
class WindowOpened:
    """A device accepted its window."""

    at: float
    device: DeviceId
    epoch: int


@dataclass(frozen=True, slots=True)
class WindowRefused:
    """A device did not accept a window, or never answered (`highest` is then None)."""

    at: float
    device: DeviceId
    epoch: int
    highest: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class WindowClosed:
    """A window ended on the device."""

    at: float
    device: DeviceId
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A device reported a kernel or a whole model: `latencies` (seconds) or a failure."""

    at: float
    device: DeviceId
    epoch: int
    job: JobId
    candidate: CandidateId
    latencies: tuple[float, ...] = ()
    failure: Failure | None = None
    raced: bool = False
    error: float | None = None
    device_time_s: float = 0.0
    joules: float | None = None
    conditions: Conditions = field(default_factory=Conditions)


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; the answer to `WakeAt`."""

    at: float


@dataclass(frozen=True, slots=True)
class HubStarted:
    """The hub (re)started with `slots` compute slots: whatever was under way must be asked for again.

    `policy`, `batch` and `window_s` say by which rules the events that follow came about: a journal folds by
    those alone.
    """

    at: float
    slots: int
    policy: str = "load_aware"
    batch: int = 16
    window_s: float = 60.0


@dataclass(frozen=True, slots=True)
class BlobFetched:
    """A user began to fetch a blob; `job` is one that it belongs to, empty where that is none."""

    at: float
    digest: str
    job: JobId
    by: str = ""
    role: str = ""


@dataclass(frozen=True, slots=True)
class PartyCertified:
    """The authority gave `party`, named as in its certificate, the certificate of a serial number."""

    at: float
    party: str
    serial: str


@dataclass(frozen=True, slots=True)
class PartyRevoked:
    """A certificate of `party` is valid no more; `by` is the account that said so where the authority is."""

    at: float
    party: str
    serial: str
    by: str = ""


Answer = (
    TasksExtracted
    | CandidatesSelected
    | KernelBuilt
    | BuildFailed
    | ModelUpdated
    | ModelCompiled
    | BundleDelivered
    | StageFailed
)
"""What a compute step ends with."""

Deed = (
    JobSubmitted | JobCanceled | DeviceDrained | DeviceUndrained | BlobFetched | PartyCertified | PartyRevoked
)
"""What people do; the last three change nothing here and are kept for those who ask later (`audit`)."""

Event = (
    Deed
    | Answer
    | DeviceSeen
    | DeviceLost
    | WindowOpened
    | WindowRefused
    | WindowClosed
    | Measured
    | Tick
    | HubStarted
)

EVENTS: dict[str, type[Event]] = {cls.__name__: cls for cls in get_args(Event)}
"""Every event class by its name in the journal."""

_ADAPTERS = {name: TypeAdapter(cls) for name, cls in EVENTS.items()}


def to_json(event: Event) -> bytes:
    """Write an event's fields as JSON; its class name is kept beside it in the journal."""
    return _ADAPTERS[type(event).__name__].dump_json(event)


def from_json(name: str, data: bytes | str) -> Event:
    """Read an event back; raises KeyError for an unknown name and ValueError for foreign fields."""
    event: Event = _ADAPTERS[name].validate_json(data)
    return event
