"""Every message on the bus: what it says, who sends it, within which limits.

A message travels in an envelope `{v, id, type, src, seq, reply_to, corr, epoch, body, sig}` (`bus.codec`);
`type` is the class's `wire` name and `body` the fields below. Times are seconds, sizes bytes.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from resonator.failures import Failure
from resonator.ids import Digest, Name
from resonator.jobspec import Duration, Label, LabelValue, Measure, TuningJob
from resonator.tensors import TensorSpec

VERSION = 1
MAX_MESSAGE = 4 * 1024 * 1024
MAX_INLINE = 1024 * 1024
"""Blobs up to this size may ride inside a message; larger ones are pulled in chunks."""
MAX_CHUNK = 256 * 1024
MAX_BLOB = 4 * 1024**3

Text = Annotated[str, StringConstraints(max_length=2000)]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Size = Annotated[int, Field(ge=0, le=MAX_BLOB)]
Epoch = Annotated[int, Field(ge=0, lt=2**62)]
Count = Annotated[int, Field(ge=0, lt=2**62)]


class Message(BaseModel):
    """The body of one message; `wire` is its type's name on the bus."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64")
    wire: ClassVar[str] = ""


class Part(BaseModel):
    """A piece of a message that never travels alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- what a box is ------------------------------------------------------------------------------------


class Offer(Part):
    """One target that a box can run code for: the exact TVM target as JSON text."""

    kind: Literal["cpu", "cuda"]
    target: Annotated[str, StringConstraints(max_length=4000)]
    tag: Annotated[str, StringConstraints(max_length=128)] | None = None


class Identity(Part):
    """What a box is, as its agent probed it; memory in bytes."""

    architecture: Annotated[str, StringConstraints(max_length=64)]
    cpu_model: Text
    extensions: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=64)], ...], Field(max_length=512)
    ] = ()
    cores: Annotated[int, Field(gt=0, le=4096)]
    cores_used: Annotated[tuple[int, ...], Field(min_length=1, max_length=4096)]
    memory: Count
    gpus: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    tvm_version: Annotated[str, StringConstraints(max_length=64)]
    agent_version: Annotated[str, StringConstraints(max_length=64)]
    labels: Annotated[dict[Label, LabelValue], Field(max_length=32)] = Field(default_factory=dict)
    offers: Annotated[tuple[Offer, ...], Field(min_length=1, max_length=16)]


class Conditions(Part):
    """What the box was like while it measured; None where the system does not show it.

    `frequency_hz` is the mean over the cores used, `temperature_c` the hottest sensor, and `foreign_load`
    the share (0..1) of the cores used that other processes took.
    """

    frequency_hz: Seconds | None = None
    temperature_c: Annotated[float, Field(allow_inf_nan=False)] | None = None
    foreign_load: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


# --- device -> hub -------------------------------------------------------------------------------------


class Status(str, Enum):
    """A device's presence and occupation, as it announces them."""

    IDLE = "idle"
    RUNNING = "running"
    DRAINING = "draining"
    OFFLINE = "offline"


class DeviceState(Message):
    """Presence, retained on `up/state`; the last will carries the same `session` with `status` offline.

    `session` grows with every start of the agent (durable), so that a late will cannot bury a newer session.
    `instance` tells two agents of one name apart. `epoch` is the highest the device has ever accepted.
    """

    wire: ClassVar[str] = "device.state"
    status: Status
    session: Count
    instance: Identifier
    epoch: Epoch = 0
    identity: Identity | None = None
    credit: Size = 0
    reason: Text = ""
    contested_by: Identifier | None = None


class DeviceClaim(Message):
    """A starting agent asks on `up/state` (not retained) whether another one already bears its name.

    A living holder answers by announcing its state again with `contested_by` set; the newcomer then gives up.
    """

    wire: ClassVar[str] = "device.claim"
    instance: Identifier


class WindowOpened(Message):
    """The device accepted a window and will hold up to `credit` bytes of kernels staged."""

    wire: ClassVar[str] = "window.opened"
    epoch: Epoch
    job: Name
    credit: Size
    conditions: Conditions = Conditions()


class WindowRefused(Message):
    """The device did not accept a window; `highest` is the epoch it has already seen."""

    wire: ClassVar[str] = "window.refused"
    epoch: Epoch
    job: Name
    highest: Epoch
    reason: Text


class WindowClosed(Message):
    """A window ended on the device; kernels of it without a result go back in the hub's queue."""

    wire: ClassVar[str] = "window.closed"
    epoch: Epoch
    job: Name
    reason: Literal["asked", "expired", "drained", "superseded", "restarted"]
    measured: Count = 0


class KernelResult(Message):
    """What came of one kernel: `latencies` (one mean per repeat) or a failure, never both.

    `raced` says that the first short run already showed it to be slow, so that the full protocol was not
    spent on it. `device_time` is what the box spent on it in all. `error` is a model's relative error
    against the reference outputs (`resonator.accuracy`).
    """

    wire: ClassVar[str] = "kernel.result"
    job: Name
    candidate: Identifier
    epoch: Epoch
    latencies: Annotated[
        tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], Field(max_length=1000)
    ] = ()
    failure: Failure | None = None
    raced: bool = False
    error: Annotated[float, Field(ge=0)] | None = None
    device_time: Seconds = 0.0
    conditions: Conditions = Conditions()


class Telemetry(Message):
    """How the box is, sent every few seconds at QoS 0; `busy` is the share of time spent measuring."""

    wire: ClassVar[str] = "device.telemetry"
    epoch: Epoch
    candidate: Identifier | None = None
    staged: Count = 0
    outbox: Count = 0
    busy: Annotated[float, Field(ge=0, le=1.001)] = 0.0
    conditions: Conditions = Conditions()


# --- hub -> device -------------------------------------------------------------------------------------


class WindowGrant(Message):
    """The hub grants a window for `duration` seconds, counted by the device on its own monotonic clock."""

    wire: ClassVar[str] = "window.grant"
    epoch: Epoch
    job: Name
    duration: Duration
    measure: Measure


class WindowClose(Message):
    """The hub ends a window: the current kernel is finished, the staged ones are given up."""

    wire: ClassVar[str] = "window.close"
    epoch: Epoch


class BlobRef(Part):
    """Bytes named by their SHA-256; `data` carries small ones along (zlib), large ones are pulled."""

    digest: Digest
    size: Size
    data: Annotated[bytes, Field(max_length=MAX_INLINE)] | None = None


class KernelPush(Message):
    """A kernel to stage and measure in window `epoch`.

    A candidate whose first run is slower than `race_s` is reported after that run alone. With `model` the
    blob is a bundle, and `reference` (npz of `in:NAME` and `out:NAME` arrays) what its outputs must be.
    """

    wire: ClassVar[str] = "kernel.push"
    epoch: Epoch
    job: Name
    candidate: Identifier
    blob: BlobRef
    device_kind: Literal["cpu", "cuda"] = "cpu"
    arguments: Annotated[tuple[TensorSpec, ...], Field(max_length=64)] = ()
    race_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    model: bool = False
    reference: BlobRef | None = None


class Ack(Message):
    """The receiver's application has taken these messages for good; the sender may forget them."""

    wire: ClassVar[str] = "ack"
    ids: Annotated[tuple[Identifier, ...], Field(max_length=1000)]


# --- blobs, either way ---------------------------------------------------------------------------------


class BlobRequest(Message):
    """Asks for `length` bytes of a blob from `offset` on."""

    wire: ClassVar[str] = "blob.request"
    digest: Digest
    offset: Size
    length: Annotated[int, Field(gt=0, le=MAX_CHUNK)]


class BlobChunk(Message):
    """Bytes of a blob of `total` bytes, from `offset` on."""

    wire: ClassVar[str] = "blob.chunk"
    digest: Digest
    offset: Size
    total: Size
    data: Annotated[bytes, Field(max_length=MAX_CHUNK)]


class BlobAbsent(Message):
    """The peer does not have that blob."""

    wire: ClassVar[str] = "blob.absent"
    digest: Digest


# --- client <-> hub ------------------------------------------------------------------------------------


class HubState(Message):
    """The hub's presence, retained on `hub/{hub}/state`; `policy` and `slots` (compute) for those who look."""

    wire: ClassVar[str] = "hub.state"
    status: Literal["online", "offline"]
    session: Count
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
    """Asks for the fleet; answered by `device.list`."""

    wire: ClassVar[str] = "device.query"
    device: Annotated[str, StringConstraints(max_length=128)] | None = None


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


class TaskStatus(Part):
    """How far one task has come; `best` is its best latency so far."""

    task: Identifier
    name: Text
    weight: Count
    trials: Count = 0
    failed: Count = 0
    best: Seconds | None = None
    state: Literal["searching", "stalled", "exhausted"] = "searching"


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
    """All that is known of a job, retained on `jobs/{job}/status` at each change."""

    wire: ClassVar[str] = "job.status"
    job: Name
    name: Name
    state: JobState
    waiting_for: Text = ""
    phase: Text = ""
    target: Text = ""
    trials: Count = 0
    budget: Count = 0
    failed_trials: Count = 0
    elapsed: Seconds = 0.0
    estimate: Seconds | None = None
    tasks: Annotated[tuple[TaskStatus, ...], Field(max_length=4096)] = ()
    untuned: Latency | None = None
    tuned: Latency | None = None
    activities: Annotated[tuple[Activity, ...], Field(max_length=256)] = ()
    bundle: BlobRef | None = None
    failure: Failure | None = None


class JobList(Message):
    """Answers `job.query`."""

    wire: ClassVar[str] = "job.list"
    jobs: Annotated[tuple[JobStatus, ...], Field(max_length=1000)]


class DeviceReport(Part):
    """One device as the hub sees it: presence, health, and what it has done."""

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


class DeviceList(Message):
    """Answers `device.query`."""

    wire: ClassVar[str] = "device.list"
    devices: Annotated[tuple[DeviceReport, ...], Field(max_length=10_000)]


def _all_messages() -> dict[str, type[Message]]:
    return {cls.wire: cls for cls in Message.__subclasses__()}


TYPES: dict[str, type[Message]] = _all_messages()
"""Every message class by its name on the bus."""
