"""One process as the hub and another as the device: select, build, measure and update without the service."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from fleets import DEVICE_CORE

from resonator_agent.worker_process import Limits, WorkerProcess
from resonator_hub import cost_model
from resonator_hub.build import Kernel, build
from resonator_hub.frontends import Workload
from resonator_hub.search import Tried, select
from resonator_hub.search.stage import HINTS, PARENTS

BATCH = 16
RACE = 1.5
"""How many times slower than the best a kernel may be to deserve the full measurement."""
PROTOCOL = {"number": 3, "repeat": 3, "min_repeat_ms": 20, "cooldown_ms": 0, "timeout_s": 10.0}


@dataclass(frozen=True)
class Trial:
    """One candidate: its trace and features, and its latency in seconds, or None for one that failed."""

    trace: bytes
    features: bytes
    latency_s: float | None


@dataclass(frozen=True)
class Knowledge:
    """What a task starts from: the cost model of the hardware, and traces of similar workloads."""

    model: bytes | None = None
    hints: tuple[bytes, ...] = ()


class Device:
    """The agent's profiler process on the device's core, asked one kernel at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._asked = 0
        self._loop = asyncio.new_event_loop()
        self._process = self._start()

    def close(self) -> None:
        """End the process."""
        self._loop.run_until_complete(self._process.end())
        self._loop.close()

    def latency_s(self, kernel: Kernel, race_s: float | None) -> float | None:
        """Return the median in seconds; None for a kernel that fails."""
        self._asked += 1
        blob = self._folder / f"{self._asked}.so"  # one name for each: the loader knows libraries by it
        blob.write_bytes(kernel.library)
        request = {
            "blob": str(blob),
            "device_kind": "cpu",
            "arguments": [(list(spec.shape), spec.dtype) for spec in kernel.arguments],
            "race_s": race_s,
            "model": False,
            "reference": None,
            "protocol": PROTOCOL,
        }
        try:
            answer = self._loop.run_until_complete(asyncio.wait_for(self._process.ask(request), 20.0))
        except (EOFError, asyncio.TimeoutError):
            self._loop.run_until_complete(self._process.end())
            self._process = self._start()
            return None
        return median(answer["latencies"]) if "latencies" in answer else None

    def _start(self) -> WorkerProcess:
        process = WorkerProcess(Limits((int(DEVICE_CORE),), 4 * 2**30, 1.0), self._folder)
        self._loop.run_until_complete(process.warm())
        return process


@contextmanager
def device() -> Iterator[Device]:
    """Start a device; it ends with the block."""
    with tempfile.TemporaryDirectory() as folder:
        started = Device(Path(folder))
        try:
            yield started
        finally:
            started.close()


def tune(
    work: Workload, target: str, box: Device, trials: int, seed: int, known: Knowledge = Knowledge()
) -> tuple[list[Trial], bytes | None]:
    """Tune one operator as the hub does, round by round; return its trials and the cost model after them."""
    done: list[Trial] = []
    model, seen = known.model, frozenset[str]()
    while len(done) < trials:
        tried = best(done, PARENTS)
        hints = known.hints if len(tried) < HINTS else ()
        count = min(BATCH, trials - len(done))
        trees = cost_model.trees(model) if model else None
        proposals = select(work.module, target, tried, trees, count, 1000 * seed + len(done), seen, hints)
        if not proposals:
            break
        seen |= {proposal.digest for proposal in proposals}
        round_ = []
        for proposal in proposals:
            kernel = build(work.module, proposal.trace, target)
            fastest = best(done + round_, 1)
            race_s = RACE * fastest[0].latency_s if fastest else None
            latency_s = box.latency_s(kernel, race_s) if isinstance(kernel, Kernel) else None
            round_.append(Trial(proposal.trace, proposal.features, latency_s))
        done += round_
        if samples := samples_of(round_, work.digest):
            model = cost_model.update(samples, model)
    return done, model


def best(trials: Sequence[Trial], count: int) -> list[Tried]:
    """Return the fastest of these trials, fastest first."""
    tried = [Tried(trial.trace, trial.latency_s) for trial in trials if trial.latency_s is not None]
    return sorted(tried, key=lambda one: one.latency_s)[:count]


def samples_of(trials: Sequence[Trial], group: str) -> list[cost_model.Sample]:
    """Return what the cost model learns from these trials."""
    return [
        cost_model.Sample(trial.features, trial.latency_s, group)
        for trial in trials
        if trial.latency_s is not None
    ]
