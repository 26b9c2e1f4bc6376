"""Moments at which something must be looked at again."""

from __future__ import annotations

import heapq
from typing import Literal

Subject = Literal["device", "job"]


class Timers:
    """A heap of (time, subject, id); a timer that no longer matters finds nothing to do when it is due."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[tuple[float, str, str]] = []

    def at(self, time: float, subject: Subject, name: str) -> None:
        """Have a device or job looked at again at `time`."""
        heapq.heappush(self._heap, (time, subject, name))

    def due(self, now: float) -> tuple[str, str] | None:
        """Take out the next (subject, id) whose time has come, or None."""
        if not self._heap or self._heap[0][0] > now:
            return None
        _, subject, name = heapq.heappop(self._heap)
        return subject, name

    def next(self) -> float | None:
        """Return the earliest time that is set."""
        return self._heap[0][0] if self._heap else None
