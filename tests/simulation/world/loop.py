"""An event loop in virtual time: it never waits, time jumps to whatever is due next."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar

from simulation.world.process import CURRENT, Process

T = TypeVar("T")


class Deadlock(RuntimeError):
    """Nothing is ready and nothing will ever be due."""


class _Task(asyncio.Task[T]):
    """A task whose place in a set depends on when it was made, not on where it lies in memory."""

    def __init__(self, number: int, work: Any, **options: Any) -> None:
        self._number = number
        super().__init__(work, **options)
        self._log_destroy_pending = False  # killed processes leave tasks behind

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs what simulated processes do, in order of time; what a dead one had in mind is dropped.

    `_ready` is asyncio's own queue. What a stopped process is to do waits meanwhile.
    """

    _ready: Any
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._made = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self.steps = 0

    def time(self) -> float:
        """Return the virtual time, in seconds since the world began."""
        return self._now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Have something done next."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Have something done in some seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Have something done at some time; what is due at the same time is done in the order of asking."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._made += 1
        heapq.heappush(self._timers, (when, self._made, timer))
        return timer

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Make a task, and note which process it belongs to."""
        self._made += 1
        task: asyncio.Task[T] = _Task(self._made, coro, loop=self, name=name and str(name), context=context)
        process = context.get(CURRENT) if context is not None else CURRENT.get()
        if process is not None:
            process.tasks[self._made] = task
            task.add_done_callback(process.forget)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run a function at once: threads have no place where everything happens in order."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """There is one thread only."""
        return self.call_soon(callback, *args, context=context)

    def _run_once(self) -> None:
        ready = self._ready
        if not ready:
            self._advance()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process: Process | None = handle._context.get(CURRENT)
            if process is None or (process.alive and not process.stopped):
                self.steps += 1
                handle._run()
            elif process.alive:
                process.held.append(handle)
            if self._stopping:
                return

    def resume(self, process: Process) -> None:
        """Have a process go on with all that it has missed."""
        process.stopped = False
        self._ready.extend(process.held)
        process.held.clear()

    def _advance(self) -> None:
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not timers:
            raise Deadlock("nothing is ready and nothing will ever be due")
        self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            self._ready.append(heapq.heappop(timers)[2])

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing is counted: cancelled timers leave the queue when they are due."""

    def _write_to_self(self) -> None:
        """There is no other thread that would wake this one."""

    def _process_events(self, event_list: Any) -> None:
        """There are no files to watch."""
