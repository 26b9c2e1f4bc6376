"""The hub's compute slots: who has one, and who is next."""

from __future__ import annotations

import heapq
from typing import Any

from resonator_hub.scheduler.job import Job
from resonator_hub.scheduler.ranked import Rank, Ranked
from resonator_hub.scheduler.step import Step


class Compute:
    """Slots, numbered from 0, and the jobs that have a step ready, in groups that share devices."""

    def __init__(self) -> None:
        self.slots: list[Step | None] = []
        self._free: list[int] = []
        self._slot_of: dict[tuple[Any, ...], int] = {}
        self._groups: Ranked[Ranked[Job]] = Ranked()
        self._group: dict[int, Ranked[Job]] = {}

    def restart(self, slots: int) -> list[Step]:
        """Begin anew with so many empty slots and return the steps that were under way, oldest first."""
        under_way = sorted(
            (step for step in self.slots if step), key=lambda step: (step.started_at, step.seq)
        )
        self.slots = [None] * slots
        self._free = list(range(slots))
        self._slot_of.clear()
        return under_way

    @property
    def has_free_slot(self) -> bool:
        """Whether a step could start now."""
        return bool(self._free)

    def occupy(self, step: Step) -> int:
        """Put a step in the lowest free slot and return its number."""
        slot = heapq.heappop(self._free)
        self.slots[slot] = step
        self._slot_of[step.key] = slot
        step.running = True
        return slot

    def vacate(self, key: tuple[Any, ...]) -> None:
        """Free the slot of an answered step, also of a job that has ended meanwhile."""
        slot = self._slot_of.pop(key, None)
        if slot is not None:
            self.slots[slot] = None
            heapq.heappush(self._free, slot)

    def queue(self, group: int, group_rank: Rank, rank: Rank, job: Job) -> None:
        """Have a job wait for a slot; its group's rank counts before its own."""
        members = self._group.setdefault(group, Ranked())
        members.put(job.number, rank, job)
        self._groups.put(group, group_rank, members)

    def withdraw(self, group: int, job: Job) -> None:
        """A job has nothing ready."""
        members = self._group.get(group)
        if members is not None:
            members.remove(job.number)
            if not members:
                self._groups.remove(group)
                del self._group[group]

    def next_job(self) -> Job | None:
        """Return the job whose step goes first, or None."""
        group = self._groups.best()
        if group is None:
            return None
        best = group[1].best()
        assert best is not None, "a group without members is removed"
        return best[1]
