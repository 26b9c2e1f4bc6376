"""Which results were asked for, so that all others can be told from them, and which have come."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from resonator.ids import CandidateId, DeviceId, JobId
from resonator_hub.scheduler.commands import Profile

Key = tuple[DeviceId, int, CandidateId]
"""A kernel in a window."""


@dataclass
class Expected:
    """How many results of a kernel in a window are still to come, and those that came, by message id.

    The future of a result ends when it is journalled. A kernel may be asked for twice in one window: its
    first measurement was disturbed.
    """

    missing: int = 0
    came: dict[str, asyncio.Future[None]] = field(default_factory=dict)


class Asked:
    """Every kernel ever pushed for a job that goes on."""

    def __init__(self) -> None:
        self._pushed: dict[JobId, dict[Key, Expected]] = {}

    def note(self, command: Profile) -> None:
        """Expect a result, or one more."""
        key = (command.device, command.epoch, command.candidate)
        self._pushed.setdefault(command.job, {}).setdefault(key, Expected()).missing += 1

    def find(self, job: JobId, key: Key) -> Expected | None:
        """Return what is expected; None when nobody asked."""
        return self._pushed.get(job, {}).get(key)

    def forget(self, job: JobId) -> None:
        """Expect nothing more for a job that has ended."""
        self._pushed.pop(job, None)
