"""A priority queue whose entries may be removed or change their rank."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Rank = tuple[Any, ...]


class Ranked(Generic[Item]):
    """Items by rank, each under a unique name that breaks ties; each operation is O(log n) amortised."""

    __slots__ = ("_entries", "_heap", "_puts")

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, Any, int, Item]] = []
        self._entries: dict[Any, tuple[Rank, int]] = {}
        self._puts = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def put(self, name: Any, rank: Rank, item: Item) -> None:
        """Insert an item, or move it to another rank."""
        entry = self._entries.get(name)
        if entry is None or entry[0] != rank:
            heapq.heappush(self._heap, self._enter(name, rank, item))
            if len(self._heap) > 64 and len(self._heap) > 4 * len(self._entries):
                self.tidy()

    def remove(self, name: Any) -> None:
        """Take an item out; one that is not in is no error."""
        self._entries.pop(name, None)

    def tidy(self) -> None:
        """Let go of what was removed or moved; nothing else changes."""
        self._heap = sorted(one for one in self._heap if self._entries.get(one[1]) == (one[0], one[2]))

    def best(self, rank_of: Callable[[Item], Rank] | None = None) -> tuple[Rank, Item] | None:
        """Return the item of lowest rank without removing it, or None when there is none.

        With `rank_of` ranks that have grown since they were given are corrected on the way.
        """
        while self._heap:
            rank, name, serial, item = self._heap[0]
            if self._entries.get(name) != (rank, serial):
                heapq.heappop(self._heap)
            elif rank_of is not None and (current := rank_of(item)) != rank:
                heapq.heapreplace(self._heap, self._enter(name, current, item))
            else:
                return rank, item
        return None

    def _enter(self, name: Any, rank: Rank, item: Item) -> tuple[Rank, Any, int, Item]:
        self._puts += 1
        self._entries[name] = (rank, self._puts)
        return rank, name, self._puts, item
