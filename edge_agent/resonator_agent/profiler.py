"""Runs kernels in a warm, isolated process that is replaced when one of them takes it down."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from resonator import sandbox
from resonator.errors import ResonatorError, quotable
from resonator.failures import Failure, FailureKind
from resonator.jobspec import Measure
from resonator.messages import MAX_LATENCIES, Conditions, KernelPush
from resonator_agent.conditions import ConditionsProbe
from resonator_agent.energy import EnergyMeter
from resonator_agent.events import Outcome
from resonator_agent.worker_process import Limits, WorkerProcess

log = structlog.get_logger(__name__)

WARM_S = 60.0
"""How long a fresh process may take to load the TVM runtime, on a slow and busy board."""
MODEL_LOAD_S = 10.0
"""What a model may take on top of its time limit to be unpacked and loaded."""
DEATH_S = 2.0
"""How long a process that hung up may take to be dead: one full of memory is not gone at once."""


@dataclass(frozen=True)
class Run:
    """One kernel to be run: what was pushed, how it is timed, and where its blobs lie."""

    push: KernelPush
    measure: Measure
    blob: Path
    reference: Path | None = None
    unpacked: Path | None = None
    """An empty file for a model's library."""


class Profiler:
    """Runs one kernel at a time in another process; this one never loads any.

    `folder` is private to the profiler, and on one file system with the blobs. Reads the box's conditions
    around each kernel by `probe`.
    """

    def __init__(self, limits: Limits, folder: Path):
        self._limits = limits
        self._scratch, self._staged = folder / "scratch", folder / "staged"
        for place in (self._scratch, self._staged):
            place.mkdir(exist_ok=True)
        self._process: WorkerProcess | None = None
        self._job = ""
        self._warming: asyncio.Task[WorkerProcess] | None = None
        self._running = False
        self._stopped = False
        self.probe = ConditionsProbe(limits.cores, clock=time.monotonic, own_pids=self.pids)
        self._energy = EnergyMeter(clock=time.monotonic)

    def pids(self) -> list[int]:
        """Return the agent's processes, whose load is not foreign."""
        return [os.getpid()] + ([self._process.pid] if self._process else [])

    async def start(self) -> None:
        """Warm a process up; raises ResonatorError where that is not possible."""
        self._warming = asyncio.ensure_future(self._spawn())
        process = await self._ready()
        if missing := {sandbox.LANDLOCK, sandbox.SECCOMP}.difference(process.sandbox):
            log.warning(f"this Linux cannot confine what is measured by {' and '.join(sorted(missing))}")

    async def run(self, run: Run) -> Outcome | None:
        """Run a kernel and return what came of it, or None when it was stopped."""
        assert not self._running, "one kernel at a time"
        self._running, self._stopped = True, False
        try:
            return await self._run(run)
        finally:
            self._running = False

    def stop(self) -> None:
        """Give up the kernel being run, if there is one."""
        if self._running:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def rest(self) -> None:
        """Free what was kept for the kernels of a window that is over."""
        if self._process is not None and not self._running:
            self._process.tell({"forget": True})

    async def close(self) -> None:
        """End the process."""
        self.stop()
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait({self._warming})
            if not self._warming.cancelled() and not self._warming.exception():
                self._process = self._warming.result()
        if self._process is not None:
            await self._process.end()
            self._process = None

    async def _run(self, run: Run) -> Outcome | None:
        try:
            await self._keep_apart(run.push.job)
            process = await self._ready()
        except ResonatorError as error:
            return Outcome(failure=Failure(kind=FailureKind.DEVICE_REFUSED, detail=str(error)))
        if self._stopped:
            return None
        before = self.probe.read()
        began = time.monotonic()
        with self._energy.measuring() as spent:
            outcome = await self._ask(process, run)
        if self._stopped:
            return None
        conditions = _around(before, self.probe.read(began))
        device_time = time.monotonic() - began
        return self._judged(
            replace(outcome, conditions=conditions, device_time=device_time, joules=spent.joules)
        )

    async def _keep_apart(self, job: str) -> None:
        """Have a fresh process for another job: one's kernels could forge what the other's took."""
        if self._process is not None and self._job not in ("", job):
            await self._replace(0.0)
        self._job = job

    async def _ask(self, process: WorkerProcess, run: Run) -> Outcome:
        """Have a process run a kernel, and replace it when it dies or takes too long."""
        limit_s = run.measure.timeout_s + (MODEL_LOAD_S if run.push.model else 0.0)
        try:
            with self._in_reach(run) as reachable:
                return _outcome(await asyncio.wait_for(process.ask(_request(reachable)), limit_s))
        except asyncio.TimeoutError:
            process.kill()
            await self._replace(0.0)
            detail = f"no result within {limit_s:g} s"
            return Outcome(failure=Failure(kind=FailureKind.KERNEL_TIMEOUT, detail=detail))
        except EOFError:
            return Outcome(failure=await self._replace(DEATH_S))

    @contextmanager
    def _in_reach(self, run: Run) -> Iterator[Run]:
        """Put what is to be run where its process may read it, and nothing else; TVM goes by the suffix."""
        blob = self._staged / f"{run.push.blob.digest}.so"
        reference = self._staged / "reference" if run.reference else None
        # The process makes no files, so that it cannot fill the disk with them.
        unpacked = self._scratch / blob.name if run.push.model else None
        try:
            os.link(run.blob, blob)
            if run.reference is not None and reference is not None:
                os.link(run.reference, reference)
            if unpacked is not None:
                unpacked.touch()
            yield replace(run, blob=blob, reference=reference, unpacked=unpacked)
        finally:
            for made in (blob, reference, unpacked):
                if made is not None:
                    made.unlink(missing_ok=True)

    def _judged(self, outcome: Outcome) -> Outcome:
        load = outcome.conditions.foreign_load
        if outcome.failure is not None or load is None or load <= self._limits.max_foreign_load:
            return outcome
        detail = (
            f"other processes took {load:.0%} of the cores used, "
            f"at most {self._limits.max_foreign_load:.0%} are accepted"
        )
        dirty = Failure(kind=FailureKind.DEVICE_DIRTY, detail=detail)
        return replace(outcome, latencies=(), raced=False, error=None, failure=dirty)

    async def _replace(self, patience_s: float) -> Failure:
        """Reap the process, begin to warm another one up, and return what the old one died of."""
        assert self._process is not None
        dead, self._process = self._process, None
        cause = await dead.end(patience_s)
        # Its processor time can no longer be told from that of others.
        self.probe.forget()
        self._warming = asyncio.ensure_future(self._spawn())
        return cause

    async def _ready(self) -> WorkerProcess:
        if self._process is not None:
            return self._process
        if self._warming is None or (self._warming.done() and self._warming.exception()):
            self._warming = asyncio.ensure_future(self._spawn())
        self._process = await asyncio.shield(self._warming)
        self._warming = None
        return self._process

    async def _spawn(self) -> WorkerProcess:
        process = WorkerProcess(self._limits, self._scratch, [self._staged])
        try:
            await asyncio.wait_for(process.warm(), WARM_S)
        except (EOFError, asyncio.TimeoutError):
            said = process.last_words().splitlines()
            await process.end()
            raise ResonatorError(
                f"the profiler process does not start: {said[-1] if said else 'it says nothing'}"
            ) from None
        except asyncio.CancelledError:
            await process.end()
            raise
        return process


def _request(run: Run) -> dict[str, Any]:
    push, measure = run.push, run.measure
    return {
        "blob": str(run.blob),
        "device_kind": push.device_kind,
        "arguments": [(list(spec.shape), spec.dtype) for spec in push.arguments],
        "race_s": push.race_s,
        "model": push.model,
        "unpacked": str(run.unpacked),
        "reference": None if run.reference is None else str(run.reference),
        "protocol": measure.model_dump(),
    }


def _outcome(answer: dict[str, Any]) -> Outcome:
    """Read the worker's answer; a kernel may have scribbled over the worker's memory before that."""
    try:
        if "failure" in answer:
            detail = quotable(str(answer["detail"]), 500)
            return Outcome(failure=Failure(kind=FailureKind(answer["failure"]), detail=detail))
        latencies = tuple(float(value) for value in answer["latencies"])
        error = None if answer.get("error") is None else float(answer["error"])
        plausible = all(0 < value < math.inf for value in latencies) and (error is None or error >= 0)
        if 0 < len(latencies) <= MAX_LATENCIES and plausible:
            return Outcome(latencies=latencies, raced=bool(answer["raced"]), error=error)
    except (KeyError, TypeError, ValueError):
        pass
    detail = "the profiler's answer makes no sense"
    return Outcome(failure=Failure(kind=FailureKind.KERNEL_CRASH, detail=detail))


def _around(before: Conditions, after: Conditions) -> Conditions:
    """Sum up two readings around a kernel: mean frequency, highest temperature, load in between."""
    frequencies = [value for value in (before.frequency_hz, after.frequency_hz) if value is not None]
    temperatures = [value for value in (before.temperature_c, after.temperature_c) if value is not None]
    return Conditions(
        frequency_hz=sum(frequencies) / len(frequencies) if frequencies else None,
        temperature_c=max(temperatures, default=None),
        foreign_load=after.foreign_load,
    )
