"""Kernels that stay on one device: a round of a task, or a whole model alone."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from resonator.ids import CandidateId
from resonator_hub.scheduler.candidate import Candidate
from resonator_hub.scheduler.transitions import RoundState

if TYPE_CHECKING:
    from resonator_hub.scheduler.device import Device
    from resonator_hub.scheduler.job import Job
    from resonator_hub.scheduler.step import Step
    from resonator_hub.scheduler.task import Task


@dataclass(slots=True, eq=False)
class Batch:
    """One round: `count` candidates from number `first` on. Without a task it is a whole model.

    `key` is like that of no other job: a device keeps the batches of many.
    `live` are the candidates without an outcome, `to_build` the builds that wait for a slot, `building` how
    many have no kernel yet, `ready` those that have one and wait for a device, `records` the results taken.
    """

    key: str
    job: Job
    task: Task | None
    number: int
    seq: int
    count: int
    first: int = 0
    state: RoundState = RoundState.SELECTING
    live: dict[CandidateId, Candidate] = field(default_factory=dict)
    to_build: deque[Step] = field(default_factory=deque)
    building: int = 0
    ready: deque[Candidate] = field(default_factory=deque)
    device: Device | None = None
    records: int = 0
    best_before: float | None = None

    @property
    def model(self) -> bool:
        """Whether this is a whole model, measured in a window of its own."""
        return self.task is None

    @property
    def is_open(self) -> bool:
        """Whether candidates are still without an outcome, or still being proposed."""
        return self.state in {RoundState.SELECTING, RoundState.MEASURING}

    def forget(self, candidate: Candidate) -> None:
        """Take out a candidate that has its outcome."""
        self.live.pop(candidate.id, None)
        if candidate in self.ready:
            self.ready.remove(candidate)
