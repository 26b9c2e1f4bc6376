"""What waits to be read, sender by sender: whoever has said much does not keep the others waiting."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """A queue in which every sender has a turn after each other; what one sender says stays in order."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[T]] = {}
        self._next: deque[str] = deque()
        self._some = asyncio.Event()
        self._closed = False

    def put(self, sender: str, item: T) -> None:
        """Add what a sender says."""
        waiting = self._waiting.get(sender)
        if waiting is None:
            self._waiting[sender] = deque((item,))
            self._next.append(sender)
            self._some.set()
        else:
            waiting.append(item)

    def waiting(self, sender: str) -> int:
        """Return how much of a sender has not been taken."""
        return len(self._waiting.get(sender, ()))

    def close(self) -> None:
        """Nothing more will come: `take` returns None once all is taken."""
        self._closed = True
        self._some.set()

    async def take(self) -> T | None:
        """Wait for the next item; None at the end."""
        while not self._next:
            if self._closed:
                return None
            self._some.clear()
            await self._some.wait()
        sender = self._next.popleft()
        waiting = self._waiting[sender]
        item = waiting.popleft()
        if waiting:
            self._next.append(sender)
        else:
            del self._waiting[sender]
        return item
