"""Which results were asked for, so that all others can be told from them, and which have come."""

from __future__ import annotations

import asyncio

from resonator.ids import CandidateId, DeviceId, JobId
from resonator_hub.scheduler.commands import Profile

Key = tuple[DeviceId, int, CandidateId]
"""A kernel in a window."""


class Asked:
    """Every kernel ever pushed for a job that goes on, with the future of its result's being journalled."""

    def __init__(self) -> None:
        self._pushed: dict[JobId, dict[Key, asyncio.Future[None] | None]] = {}

    def note(self, command: Profile) -> None:
        """Expect a result."""
        key = (command.device, command.epoch, command.candidate)
        self._pushed.setdefault(command.job, {}).setdefault(key, None)

    def includes(self, job: JobId, key: Key) -> bool:
        """Whether this result was asked for."""
        return key in self._pushed.get(job, {})

    def taken(self, job: JobId, key: Key) -> asyncio.Future[None] | None:
        """Return the future of a result that has come before; None for the first one."""
        return self._pushed[job][key]

    def take(self, job: JobId, key: Key, taken: asyncio.Future[None]) -> None:
        """Note that the result has come."""
        self._pushed[job][key] = taken

    def forget(self, job: JobId) -> None:
        """Expect nothing more for a job that has ended."""
        self._pushed.pop(job, None)
