"""What a device tells the hub."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, ClassVar, Literal

from pydantic import FailFast, Field, model_validator
from typing_extensions import Self

from resonator.failures import Failure
from resonator.ids import Name
from resonator.messages.base import (
    Count,
    Epoch,
    Identifier,
    Message,
    Seconds,
    Size,
    Text,
)
from resonator.messages.box import Conditions, Identity

MAX_WATTS = 20_000.0
"""No box draws more: a claim beyond it is a broken sensor's."""

MAX_LATENCIES = 1000

SeenEpoch = Annotated[int, Field(ge=0, lt=2**61)]
"""What a device says it has seen, at most half of what there is: room for all windows it will be granted."""


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
    epoch: SeenEpoch = 0
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
    highest: SeenEpoch
    reason: Text


class WindowClosed(Message):
    """A window ended on the device; kernels of it without a result go back in the hub's queue."""

    wire: ClassVar[str] = "window.closed"
    epoch: Epoch
    job: Name
    reason: Literal["asked", "expired", "drained", "superseded", "restarted"]
    measured: Count = 0


class KernelResult(Message):
    """What came of one kernel: `latencies` or a failure, never both.

    The latencies are means over a part of a repeat each, as many as it took to know their median; a model's
    over a whole repeat each. `raced` says that single runs already showed it to be slow, and the latency is
    the fastest of these. `device_time` is what the box spent on it in all, `joules` what it drew meanwhile,
    None where no sensor can be read. `error` is a model's relative error against the reference outputs
    (`resonator.accuracy`).
    """

    wire: ClassVar[str] = "kernel.result"
    job: Name
    candidate: Identifier
    epoch: Epoch
    latencies: Annotated[
        tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...],
        FailFast(),
        Field(max_length=MAX_LATENCIES),
    ] = ()
    failure: Failure | None = None
    raced: bool = False
    error: Annotated[float, Field(ge=0)] | None = None
    device_time: Seconds = 0.0
    joules: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    conditions: Conditions = Conditions()

    @model_validator(mode="after")
    def _draws_what_a_box_can(self) -> Self:
        most = MAX_WATTS * self.device_time
        if self.joules is not None and self.joules > most:
            raise ValueError(
                f"joules: {self.joules:g} in {self.device_time:g} s; at most {MAX_WATTS:g} W, "
                f"here {most:g} J, are accepted"
            )
        return self


class Telemetry(Message):
    """How the box is, sent every few seconds at QoS 0; `busy` is the share of time spent measuring.

    `refused` counts what the agent has heard since its start and not acted upon: forged, repeated, too late.
    """

    wire: ClassVar[str] = "device.telemetry"
    epoch: Epoch
    candidate: Identifier | None = None
    staged: Count = 0
    outbox: Count = 0
    busy: Annotated[float, Field(ge=0, le=1.001)] = 0.0
    refused: Count = 0
    conditions: Conditions = Conditions()
