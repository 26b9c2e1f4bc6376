"""The profiler of a simulated box: kernels take virtual time, each run can be told from all others."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from resonator.failures import Failure, FailureKind
from resonator.messages import Conditions, KernelPush
from resonator_agent.events import Outcome
from resonator_agent.profiler import Run

CRASHES, HANGS, DIRTY = 0.03, 0.02, 0.02
"""Of how many kernels each is the fate."""


@dataclass
class Probe:
    """What a quiet box is like."""

    conditions: Conditions = field(default_factory=lambda: Conditions(temperature_c=50.0))

    def read(self) -> Conditions:
        """Return the conditions, which never change."""
        return self.conditions


@dataclass(frozen=True)
class Measurement:
    """One run of a kernel on a box; `serial` numbers all runs of the world."""

    serial: int
    box: str
    push: KernelPush
    began: float


class SimulatedProfiler:
    """Runs kernels by waiting; `begins` and `ends` hear of each, `serials` numbers them."""

    def __init__(
        self,
        box: str,
        chance: random.Random,
        serials: Callable[[], int],
        begins: Callable[[Measurement], None],
        ends: Callable[[Measurement, Outcome | None], None],
    ) -> None:
        self.probe = Probe()
        self._box = box
        self._chance = chance
        self._serials = serials
        self._begins = begins
        self._ends = ends
        self._interrupted: asyncio.Event | None = None
        self._killed = False

    async def start(self) -> None:
        """Warm up."""
        await asyncio.sleep(0.5)

    async def run(self, run: Run) -> Outcome | None:
        """Run a kernel."""
        assert self._interrupted is None, "one kernel at a time"
        began = asyncio.get_running_loop().time()
        measurement = Measurement(self._serials(), self._box, run.push, began)
        self._begins(measurement)
        self._interrupted, self._killed = asyncio.Event(), False
        outcome: Outcome | None = None
        try:
            outcome = await self._run(run, measurement)
        finally:
            self._interrupted = None
            self._ends(measurement, outcome)
        return outcome

    def stop(self) -> None:
        """Give up the kernel being run."""
        if self._interrupted is not None:
            self._interrupted.set()

    def kill(self) -> None:
        """End as `kill -9` does."""
        self._killed = True
        self.stop()

    def rest(self) -> None:
        """There is nothing to free."""

    async def close(self) -> None:
        """End."""
        self.stop()

    async def _run(self, run: Run, measurement: Measurement) -> Outcome | None:
        assert self._interrupted is not None
        fate, takes_s = self._chance.random(), self._chance.uniform(0.05, 2.0)
        if fate < HANGS:
            takes_s = run.measure.timeout_s
        try:
            await asyncio.wait_for(self._interrupted.wait(), takes_s)
        except asyncio.TimeoutError:
            return self._outcome(run, measurement, fate)
        return self._failed(measurement, FailureKind.KERNEL_CRASH, "killed") if self._killed else None

    def _outcome(self, run: Run, measurement: Measurement, fate: float) -> Outcome:
        model = run.push.model
        if fate < HANGS:
            return self._failed(measurement, FailureKind.KERNEL_TIMEOUT, "no result in time")
        if fate < HANGS + DIRTY:
            return self._failed(measurement, FailureKind.DEVICE_DIRTY, "others took the cores")
        if not model and fate < HANGS + DIRTY + CRASHES:
            return self._failed(measurement, FailureKind.KERNEL_CRASH, "segmentation fault")
        # The serial is in the digits that nobody looks at.
        latency = round(self._chance.uniform(0.001, 0.01), 5) + measurement.serial * 1e-11
        took_s = asyncio.get_running_loop().time() - measurement.began
        return Outcome(latencies=(latency,), error=1e-7 if model else None, device_time=took_s)

    def _failed(self, measurement: Measurement, kind: FailureKind, why: str) -> Outcome:
        took_s = asyncio.get_running_loop().time() - measurement.began
        failure = Failure(kind=kind, detail=f"run {measurement.serial}: {why}")
        return Outcome(failure=failure, device_time=took_s)
