"""Between client and hub: jobs in, answers and statuses out."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import FailFast, Field, StringConstraints

from resonator.failures import Failure
from resonator.ids import Name
from resonator.jobspec import Measure, TuningJob
from resonator.messages.base import (
    Count,
    Epoch,
    Identifier,
    Message,
    Part,
    Seconds,
    Text,
)
from resonator.messages.blob import BlobRef
from resonator.messages.box import Conditions, Identity

MAX_REASON = 200
"""Characters that say why a device is drained."""


class HubState(Message):
    """The hub's presence, retained on `hub/{hub}/state`, with its policy and number of compute slots.

    `origin` tells databases apart: hubs that share one tell of the same.
    """

    wire: ClassVar[str] = "hub.state"
    status: Literal["online", "offline"]
    session: Count
    origin: Annotated[str, StringConstraints(max_length=64)] = ""
    version: Annotated[str, StringConstraints(max_length=64)] = ""
    policy: Annotated[str, StringConstraints(max_length=64)] = ""
    slots: Count = 0


class JobSubmit(Message):
    """Submits a job; the model's bytes ride along, or are pulled from the client by digest."""

    wire: ClassVar[str] = "job.submit"
    job: Name
    spec: TuningJob
    model: BlobRef


class JobAccepted(Message):
    """The job is journalled and will not be lost; follow `jobs/{job}/status`."""

    wire: ClassVar[str] = "job.accepted"
    job: Name


class Rejected(Message):
    """The request was not taken, and why."""

    wire: ClassVar[str] = "rejected"
    failure: Failure


class JobCancel(Message):
    """Asks to end a job; answered by `job.status`."""

    wire: ClassVar[str] = "job.cancel"
    job: Name


class JobQuery(Message):
    """Asks for the status of one job, or of all (newest first) when `job` is None; answered by `job.list`."""

    wire: ClassVar[str] = "job.query"
    job: Name | None = None


class DeviceQuery(Message):
    """Asks for the fleet, from the first `SITE/NAME` after `after`, or for the devices of one name.

    Answered by `device.list`.
    """

    wire: ClassVar[str] = "device.query"
    device: Annotated[str, StringConstraints(max_length=128)] | None = None
    after: Annotated[str, StringConstraints(max_length=128)] = ""


class BenchRequest(Message):
    """Asks to have a bundle measured on a device in a window of its own; it becomes a job without trials."""

    wire: ClassVar[str] = "bench.request"
    job: Name
    bundle: BlobRef
    device: Annotated[str, StringConstraints(max_length=128)] | None = None
    measure: Measure = Measure()


class JobState(str, Enum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def ended(self) -> bool:
        """Whether the job will not change any more."""
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED}


Outcome = Literal["measured", "raced", "failed", "build_failed", "discarded", "under_way", "search", "model"]
"""What resources were spent on: candidates by what became of them, the search for them, the whole model."""


class Cost(Part):
    """What one kind of outcome took: trials, seconds of devices and of the hub's processors, energy.

    `joules` is that of the measurements whose box tells it, None where none did.
    """

    outcome: Outcome
    trials: Count = 0
    device_s: Seconds = 0.0
    cpu_s: Seconds = 0.0
    joules: Seconds | None = None


Costs = Annotated[tuple[Cost, ...], FailFast(), Field(max_length=len(get_args(Outcome)))]


class TaskStatus(Part):
    """How far one task has come; `best` is its best latency so far."""

    task: Identifier
    name: Text
    weight: Count
    trials: Count = 0
    failed: Count = 0
    best: Seconds | None = None
    state: Literal["searching", "stalled", "exhausted"] = "searching"
    costs: Costs = ()


class Latency(Part):
    """A whole model's latency: the median of its repeats with their spread, and its relative error."""

    median: Seconds
    low: Seconds
    high: Seconds
    device: Identifier
    error: Annotated[float, Field(ge=0)] | None = None
    conditions: Conditions = Conditions()


class Activity(Part):
    """What a device or a compute slot is doing right now."""

    resource: Identifier
    doing: Text


class JobStatus(Message):
    """All that is known of a job, retained on `jobs/{job}/status` at each change.

    `stopped` says why the search ended. `costs` are those of all its tasks and of the whole model, each
    outcome once.
    """

    wire: ClassVar[str] = "job.status"
    job: Name
    name: Name
    state: JobState
    waiting_for: Text = ""
    phase: Text = ""
    stopped: Text = ""
    target: Text = ""
    trials: Count = 0
    budget: Count = 0
    failed_trials: Count = 0
    elapsed: Seconds = 0.0
    estimate: Seconds | None = None
    tasks: Annotated[tuple[TaskStatus, ...], FailFast(), Field(max_length=4096)] = ()
    untuned: Latency | None = None
    tuned: Latency | None = None
    costs: Costs = ()
    activities: Annotated[tuple[Activity, ...], FailFast(), Field(max_length=256)] = ()
    bundle: BlobRef | None = None
    failure: Failure | None = None


class JobList(Message):
    """Answers `job.query`."""

    wire: ClassVar[str] = "job.list"
    jobs: Annotated[tuple[JobStatus, ...], FailFast(), Field(max_length=1000)]


class DeviceDrain(Message):
    """Asks to grant a device, by `SITE/NAME`, no further window; answered by `device.list` with that device.

    What is being measured there is finished; it stays drained, over restarts too, until `device.undrain`.
    """

    wire: ClassVar[str] = "device.drain"
    device: Annotated[str, StringConstraints(max_length=128)]
    reason: Annotated[str, StringConstraints(max_length=MAX_REASON)] = ""


class DeviceUndrain(Message):
    """Asks to grant a drained device again; answered by `device.list` with that device."""

    wire: ClassVar[str] = "device.undrain"
    device: Annotated[str, StringConstraints(max_length=128)]


class Drain(Part):
    """Who drained a device, and why; `role` is that of his certificate, empty where nobody signs."""

    by: Text
    role: Annotated[str, StringConstraints(max_length=64)] = ""
    reason: Text = ""


class DeviceReport(Part):
    """One device as the hub sees it: presence, health, what it has done, how many messages it `refused`."""

    device: Identifier
    state: Literal["offline", "unknown", "idle", "reserved", "running"]
    health: Literal["good", "unknown", "bad", "maintenance"] = "unknown"
    reason: Text = ""
    identity: Identity | None = None
    epoch: Epoch = 0
    job: Name | None = None
    doing: Text = ""
    measured: Count = 0
    busy_s: Seconds = 0.0
    drained: Drain | None = None
    refused: Count = 0


class DeviceList(Message):
    """Answers `device.query`, by `SITE/NAME` in order; where there are `more`, ask again after the last."""

    wire: ClassVar[str] = "device.list"
    devices: Annotated[tuple[DeviceReport, ...], FailFast(), Field(max_length=10_000)]
    more: bool = False
