"""A priority queue whose entries may be removed or change their rank."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Rank = tuple[Any, ...]


class Ranked(Generic[Item]):
    """Items by rank, each under a unique name that breaks ties; each operation is O(log n) amortised."""

    __slots__ = ("_heap", "_ranks")

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, Any, Item]] = []
        self._ranks: dict[Any, Rank] = {}

    def __len__(self) -> int:
        return len(self._ranks)

    def __contains__(self, name: object) -> bool:
        return name in self._ranks

    def __iter__(self) -> Iterator[Any]:
        """Go through the names in the order in which they came in."""
        return iter(self._ranks)

    def put(self, name: Any, rank: Rank, item: Item) -> None:
        """Insert an item, or move it to another rank."""
        if self._ranks.get(name) != rank:
            self._ranks[name] = rank
            heapq.heappush(self._heap, (rank, name, item))
            if len(self._heap) > 64 and len(self._heap) > 4 * len(self._ranks):
                self._compact()

    def remove(self, name: Any) -> None:
        """Take an item out; one that is not in is no error."""
        self._ranks.pop(name, None)

    def best(self, rank_of: Callable[[Item], Rank] | None = None) -> tuple[Rank, Item] | None:
        """Return the item of lowest rank without removing it, or None when there is none.

        With `rank_of` ranks that have grown since they were given are corrected on the way.
        """
        while self._heap:
            rank, name, item = self._heap[0]
            if self._ranks.get(name) != rank:
                heapq.heappop(self._heap)
            elif rank_of is not None and (current := rank_of(item)) != rank:
                self._ranks[name] = current
                heapq.heapreplace(self._heap, (current, name, item))
            else:
                return rank, item
        return None

    def _compact(self) -> None:
        live: dict[Any, tuple[Rank, Any, Item]] = {}
        for entry in self._heap:
            if self._ranks.get(entry[1]) == entry[0]:
                live[entry[1]] = entry
        self._heap = list(live.values())
        heapq.heapify(self._heap)
