"""Where select, build, update and compile run: any executor, by default a pool of warm processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar, runtime_checkable

from resonator_hub.calls import ComputeFailed
from resonator_hub.meter import charge
from resonator_hub.pool import WarmPool

T = TypeVar("T")

__all__ = ["Compute", "ComputeFailed", "WarmPool"]


@runtime_checkable
class Warming(Protocol):
    """An executor that takes a while before it takes calls."""

    def wait_until_warm(self) -> None:
        """Block until it takes calls. Raises `ComputeFailed` when it never will."""


class Compute:
    """Runs stages, plain functions of plain data, on an executor with `slots` places at a time."""

    def __init__(self, executor: Executor, slots: int) -> None:
        self.slots = slots
        self._executor = executor
        self._places = asyncio.Semaphore(slots)
        self._ready = asyncio.Event()

    @property
    def warm(self) -> bool:
        """Whether calls begin at once."""
        return self._ready.is_set()

    async def start(self) -> None:
        """Return when the executor takes calls; those made before wait. Raises `ComputeFailed`."""
        if isinstance(self._executor, Warming):
            await asyncio.to_thread(self._executor.wait_until_warm)
        self._ready.set()

    async def run(self, function: Callable[..., T], *args: Any, timeout_s: float) -> T:
        """Return `function(*args)`, run elsewhere; the time starts with its turn on a place.

        What the function raises is raised here. Raises `ComputeFailed` when it took longer than
        `timeout_s`, crashed or ran out of memory; cancelling this call ends its worker too.
        The step on whose behalf it runs is charged with the processor time.
        """
        await self._ready.wait()
        async with self._places:
            began = time.monotonic()
            call = self._executor.submit(function, *args)
            try:
                return await asyncio.wait_for(asyncio.wrap_future(call), timeout_s)
            except asyncio.TimeoutError:
                name = getattr(function, "__name__", str(function))
                raise ComputeFailed(f"{name} did not finish within {timeout_s:g} s.") from None
            finally:
                # A worker that was killed cannot tell any more, nor do other executors: it had one thread.
                told: float | None = getattr(call, "cpu_s", None)
                charge(time.monotonic() - began if told is None else told)

    async def close(self) -> None:
        """Give up the calls that run and end the workers."""
        await asyncio.to_thread(self._executor.shutdown, True, cancel_futures=True)
