"""What the agent's machine is told; `at` is the agent's monotonic clock, in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from resonator.failures import Failure
from resonator.messages import Conditions, DeviceState, KernelPush, WindowGrant


@dataclass(frozen=True)
class Outcome:
    """What came of running one kernel: latencies (seconds, one mean per repeat) or a failure, never both.

    `joules` is what the box drew during `device_time` seconds, None where it does not tell.
    """

    latencies: tuple[float, ...] = ()
    failure: Failure | None = None
    raced: bool = False
    error: float | None = None
    device_time: float = 0.0
    joules: float | None = None
    conditions: Conditions = field(default_factory=Conditions)


@dataclass(frozen=True)
class Event:
    """Something happened `at` seconds."""

    at: float


@dataclass(frozen=True)
class Connected(Event):
    """The broker has accepted the agent, for the first time or again."""


@dataclass(frozen=True)
class ClaimSeen(Event):
    """An agent, perhaps this one, asked whether the name is free."""

    instance: str


@dataclass(frozen=True)
class StateSeen(Event):
    """A state was announced under this device's name, perhaps by this agent or in an earlier life."""

    state: DeviceState


@dataclass(frozen=True)
class Granted(Event):
    """The hub grants a window; `conditions` are the box's at that moment."""

    grant: WindowGrant
    conditions: Conditions = field(default_factory=Conditions)


@dataclass(frozen=True)
class CloseAsked(Event):
    """The hub ends the window of `epoch`."""

    epoch: int


@dataclass(frozen=True)
class KernelPushed(Event):
    """The hub wants a kernel staged."""

    push: KernelPush


@dataclass(frozen=True)
class BlobArrived(Event):
    """A fetched blob is here, verified."""

    digest: str


@dataclass(frozen=True)
class BlobFailed(Event):
    """A fetched blob will not come, or is not what its digest says."""

    digest: str
    failure: Failure


@dataclass(frozen=True)
class ProfilingEnded(Event):
    """The profiler is free again; `outcome` is None when it was stopped."""

    outcome: Outcome | None


@dataclass(frozen=True)
class DrainAsked(Event):
    """The user wants the agent to end; asked a second time, at once."""


@dataclass(frozen=True)
class Woke(Event):
    """A moment asked for by `WakeAt` may have come."""
