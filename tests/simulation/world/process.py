"""A simulated process: what runs on its behalf, and whether it still does."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context, ContextVar, copy_context
from typing import Any
from unittest.mock import patch

CURRENT: ContextVar[Process | None] = ContextVar("CURRENT", default=None)
"""The process on whose behalf code runs right now; None is the world itself."""


WORLD = Context()
"""In which the world's own doings are run, whoever has caused them."""


class Killed(BaseException):
    """The process dies in the midst of what it does; nothing that it would do afterwards happens."""


class Process:
    """One life of a program on a host; `kill` ends it as `kill -9` does.

    `at_death` are the hooks by which the world takes away what the process held: connections and files.
    """

    def __init__(self, name: str, wall: Callable[[], float]) -> None:
        self.name = name
        self.wall = wall
        self.alive = True
        self.stopped = False
        self.tasks: dict[int, asyncio.Task[Any]] = {}
        self.held: list[Any] = []
        self.at_death: list[Callable[[], None]] = []
        self.context: Context = copy_context()
        self.context.run(CURRENT.set, self)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin to run a program."""
        loop = asyncio.get_running_loop()
        return loop.create_task(work, name=self.name, context=self.context)

    def forget(self, task: asyncio.Task[Any]) -> None:
        """A task has ended."""
        self.tasks.pop(hash(task), None)

    def kill(self) -> None:
        """End now; a process that runs right now goes on to its next breath, and nobody hears of it."""
        if not self.alive:
            return
        self.alive = False
        for hook in self.at_death:
            hook()
        self.held.clear()

    def bury(self) -> None:
        """Close what was left half done, so that nothing of it is found in another world."""
        left = list(self.tasks.values())
        self.tasks.clear()
        for task in left:
            self.context.run(_close, task)


def _close(task: asyncio.Task[Any]) -> None:
    coroutine = task.get_coro()
    for _ in range(10):
        with contextlib.suppress(BaseException):
            coroutine.close()
            return


@contextlib.contextmanager
def silent_ends() -> Iterator[None]:
    """Have nothing said of what was left half done by processes that were killed."""
    with patch.object(sys, "unraisablehook", lambda _unraisable: None):
        yield
