"""Which results were asked for, so that all others can be told from them, and which have come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat

from resonator.ids import CandidateId, DeviceId, JobId
from resonator_hub.scheduler.commands import Profile

Key = tuple[DeviceId, int, CandidateId]
"""A kernel in a window."""


@dataclass
class Expected:
    """How many results of a kernel in a window are still to come, and those that came, by message id.

    The future of a result ends when it is journalled. A kernel may be asked for twice in one window: its
    first measurement was disturbed; `command` is the last time.
    """

    command: Profile
    missing: int = 0
    came: dict[str, asyncio.Future[None]] = field(default_factory=dict)


class Asked:
    """Every kernel ever pushed for a job that goes on: by device and name, then by window."""

    def __init__(self) -> None:
        self._pushed: dict[JobId, dict[tuple[DeviceId, CandidateId], dict[int, Expected]]] = {}

    def note(self, command: Profile) -> None:
        """Expect a result, or one more."""
        windows = self._pushed.setdefault(command.job, {}).setdefault((command.device, command.candidate), {})
        expected = windows.setdefault(command.epoch, Expected(command))
        expected.command = command
        expected.missing += 1

    def find(self, job: JobId, key: Key) -> Expected | str:
        """Return what is expected, or in a few words why nothing is."""
        device, epoch, candidate = key
        if (of_job := self._pushed.get(job)) is None:
            return "of no job here"
        if (windows := of_job.get((device, candidate))) is None:
            return "of a kernel not given"
        return windows.get(epoch, "of another window")

    def commands(self) -> Iterator[Profile]:
        """Yield what was pushed, each kernel as often as a result of it may come."""
        for of_job in self._pushed.values():
            for expected in chain.from_iterable(windows.values() for windows in of_job.values()):
                yield from repeat(expected.command, expected.missing + len(expected.came))

    def forget(self, job: JobId) -> None:
        """Expect nothing more for a job that has ended."""
        self._pushed.pop(job, None)
