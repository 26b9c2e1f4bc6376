"""Times kernels by the agent's own profiler, on cores that this process leaves alone."""

from __future__ import annotations

import asyncio
import hashlib
import statistics
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from resonator.failures import FailureKind
from resonator.jobspec import Measure
from resonator.messages import BlobRef, KernelPush
from resonator_agent.profiler import Profiler, Run
from resonator_agent.worker_process import Limits
from resonator_hub.build import Kernel

MEASURE = Measure(number=3, repeat=3, min_repeat_ms=30)
MEMORY = 4 * 2**30
MAX_FOREIGN_LOAD = 0.2
ATTEMPTS, REST_S = 10, 1.0
"""How often a kernel is measured that others disturbed, and the time in between."""


class Disturbed(Exception):
    """The cores were never free for as long as one measurement takes."""


class KernelTimer:
    """Measures one kernel at a time."""

    def __init__(self, profiler: Profiler, folder: Path) -> None:
        self._profiler, self._folder = profiler, folder

    async def latency(self, kernel: Kernel, race_s: float | None) -> float | None:
        """Return the median latency in seconds, or None for a kernel that failed. Raises `Disturbed`."""
        path = self._folder / "kernel"
        path.unlink(missing_ok=True)  # the profiler may still have the last one loaded from that file
        path.write_bytes(kernel.library)
        push = KernelPush(
            epoch=1,
            job="bench",
            candidate="bench",
            blob=BlobRef(digest=hashlib.sha256(kernel.library).hexdigest(), size=len(kernel.library)),
            arguments=kernel.arguments,
            race_s=race_s,
        )
        for _ in range(ATTEMPTS):
            outcome = await self._profiler.run(Run(push, MEASURE, path))
            assert outcome is not None, "nobody stops this profiler"
            if outcome.failure is None:
                return statistics.median(outcome.latencies)
            if outcome.failure.kind is not FailureKind.DEVICE_DIRTY:
                return None
            await asyncio.sleep(REST_S)
        raise Disturbed


@asynccontextmanager
async def kernel_timer(cores: tuple[int, ...]) -> AsyncIterator[KernelTimer]:
    """Warm a profiler up that is pinned to `cores`, with a thread on each."""
    with tempfile.TemporaryDirectory() as folder:
        profiler = Profiler(Limits(cores, MEMORY, MAX_FOREIGN_LOAD), Path(folder))
        await profiler.start()
        try:
            yield KernelTimer(profiler, Path(folder))
        finally:
            await profiler.close()
