"""What the agent's machine asks of the shell around it, to be performed in order."""

from __future__ import annotations

from dataclasses import dataclass

from resonator.jobspec import Measure
from resonator.messages import BlobRef, KernelPush, Message


@dataclass(frozen=True)
class Command:
    """Something to be done."""


@dataclass(frozen=True)
class StoreWindow(Command):
    """Write down for good that `epoch` has been seen, and the job whose window is open (None: no window)."""

    epoch: int
    job: str | None


@dataclass(frozen=True)
class Say(Command):
    """Send a message to the hub, or to whoever listens to this device's state."""

    message: Message


@dataclass(frozen=True)
class Repeat(Command):
    """Send what the outbox holds again: one candidate's result, or with None all of it."""

    candidate: str | None = None


@dataclass(frozen=True)
class Fetch(Command):
    """Get a blob; answered by BlobArrived or BlobFailed."""

    ref: BlobRef


@dataclass(frozen=True)
class Discard(Command):
    """Drop a blob, or stop fetching it: nothing staged needs it any more."""

    digest: str


@dataclass(frozen=True)
class StartProfiling(Command):
    """Run one kernel; answered by exactly one ProfilingEnded."""

    push: KernelPush
    measure: Measure


@dataclass(frozen=True)
class StopProfiling(Command):
    """Give up the kernel being run; ProfilingEnded follows."""


@dataclass(frozen=True)
class WakeAt(Command):
    """Send Woke once the monotonic clock shows `at` seconds."""

    at: float


@dataclass(frozen=True)
class Refuse(Command):
    """A message from the bus was not acted upon; to be logged."""

    what: str
    reason: str


@dataclass(frozen=True)
class GiveUp(Command):
    """End without touching the device's announced state: the name belongs to someone else."""

    reason: str


@dataclass(frozen=True)
class Leave(Command):
    """End: everything has been said."""
