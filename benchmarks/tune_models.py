"""Tunes the operators of the whole models, for as long as it is given, into benchmarks/records.

`python tune_models.py --hours 2 --threads 1 [--models A,B] [--only conv2d,pool]`. It can be stopped at any
time and goes on where it stopped: every trial is kept in benchmarks/.tuning as it comes, the best of each
operator in the records. It searches and builds on core 0 and measures on core 1; with two threads on both.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from best_records import THREADS, archived, forget, keep, target
from kernel_timer import Disturbed, KernelTimer, kernel_timer
from models import MODELS, model
from trials import Trial, Trials

from resonator.failures import Failure
from resonator.ids import JobId, task_id
from resonator_hub.build import Kernel, build
from resonator_hub.compute import Compute, ComputeFailed, WarmPool
from resonator_hub.cost_model.boosted import trees, update
from resonator_hub.cost_model.memory import Sample
from resonator_hub.cost_model.stage import FAILED
from resonator_hub.frontends import Workload
from resonator_hub.frontends.onnx import extract
from resonator_hub.records.archive import Archived
from resonator_hub.scheduler.events import TaskFound
from resonator_hub.scheduler.knobs import Knobs
from resonator_hub.scheduler.task import Task, most_promising
from resonator_hub.search import Proposal, select

TRIALS = Path(__file__).parent / ".tuning"
SEARCH_CORE = 0
CORES = {1: (1,), 2: (0, 1)}
"""Where kernels are measured, by the number of threads."""
RACE = 1.5
"""A kernel whose first runs take this many times the best's is not measured any further."""
PARENTS = 32
HINTS = 8
BUILD_S, LONG_S = 20.0, 600.0
"""What a build, and anything else, may take."""
KNOBS = Knobs()
REMEMBERED = 5000
"""How many of the last trials teach the cost model when tuning goes on after a stop."""


@dataclass(frozen=True)
class Operator:
    """An operator of a model: how far its search has come, and what is searched."""

    task: Task
    work: Workload


class Tuner:
    """Gives rounds of trials to operators, and learns from them."""

    def __init__(self, threads: int, timer: KernelTimer, compute: Compute) -> None:
        self._threads, self._timer, self._compute = threads, timer, compute
        self._target = target(threads)
        self._trials = Trials(TRIALS / f"threads{threads}", self._target)
        self._cost_model: bytes | None = None
        self._learn(list(self._trials.all())[-REMEMBERED:])

    async def operators(self, names: Sequence[str], only: Sequence[str]) -> dict[str, list[Operator]]:
        """Return the operators of each model whose names contain one of `only`.

        One that two models have in common is the first's.
        """
        found: dict[str, list[Operator]] = {}
        owned: set[str] = set()
        for name in names:
            source = model(name)
            extraction = await self._compute.run(extract, source, {}, self._target, timeout_s=LONG_S)
            works = [work for work in extraction.tasks if work.digest not in owned and _named(work, only)]
            owned.update(work.digest for work in works)
            found[name] = [self._operator(name, index, work) for index, work in enumerate(works)]
        return {name: operators for name, operators in found.items() if operators}

    def _operator(self, name: str, index: int, work: Workload) -> Operator:
        identity = task_id(JobId(name.replace("_", "-")), index)
        task = Task(TaskFound(identity, work.name, work.digest, work.weight, work.flops), index, None)
        task.best = self._trials.best(work.digest)
        if task.best is not None:
            task.rounds, task.trials = 1, len(self._trials.seen(work.digest))
            task.learn(None, task.trials, KNOBS)
        return Operator(task, work)

    async def round(self, operator: Operator) -> None:
        """Try a batch of candidates of an operator, and learn from them."""
        task, work = operator.task, operator.work
        proposals = await self._proposals(operator)
        if not proposals:
            task.exhausted = True
            return
        before = task.best
        trials = await self._tried(operator, proposals)
        if not trials:  # others needed the cores
            return
        task.rounds += 1
        task.trials += len(trials)
        task.best = self._trials.best(work.digest)
        task.learn(before, len(trials), KNOBS)
        self._learn(trials)
        keep(self._threads, [_archived(one, one.latency_s) for one in trials if one.latency_s is not None])

    async def _proposals(self, operator: Operator) -> tuple[Proposal, ...]:
        task, work = operator.task, operator.work
        if not task.rounds and (inherited := self._inherited(work)):
            return inherited
        try:
            return await self._compute.run(
                select,
                work.module,
                self._target,
                self._trials.top(work.digest, PARENTS),
                None if self._cost_model is None else trees(self._cost_model),
                KNOBS.batch,
                time.time_ns() % 2**31,
                self._trials.seen(work.digest),
                self._trials.best_of_kind(work, HINTS),
                timeout_s=LONG_S,
            )
        except ComputeFailed as error:
            print(f"{work.name}: {error}")
            return ()

    def _inherited(self, work: Workload) -> tuple[Proposal, ...]:
        """Return what is kept as best for any number of threads: likely good for this one as well."""
        records = [one for threads in THREADS for one in archived(threads) if one.workload == work.digest]
        traces = sorted({one.trace for one in records})
        return tuple(Proposal(trace, hashlib.sha256(trace).hexdigest(), b"", None) for trace in traces)

    async def _tried(self, operator: Operator, proposals: Sequence[Proposal]) -> list[Trial]:
        """Build and measure; where the cores allow, a kernel is measured while the next one is built."""
        trials: list[Trial] = []
        built: asyncio.Queue[tuple[Proposal, Kernel | None] | None] = asyncio.Queue()

        async def measure() -> None:
            best = operator.task.best
            while (item := await built.get()) is not None:
                proposal, kernel = item
                race_s = None if best is None else best * RACE
                try:
                    latency = None if kernel is None else await self._timer.latency(kernel, race_s)
                except Disturbed:
                    continue
                best = min((one for one in (best, latency) if one is not None), default=None)
                trials.append(self._kept(operator.work, proposal, latency))

        alongside = SEARCH_CORE not in CORES[self._threads]
        measuring = asyncio.ensure_future(measure()) if alongside else None
        for proposal in proposals:
            built.put_nowait((proposal, await self._kernel(operator.work, proposal)))
        built.put_nowait(None)
        await (measuring or measure())
        return trials

    async def _kernel(self, work: Workload, proposal: Proposal) -> Kernel | None:
        """Build a kernel, unless it cannot be built or that takes LLVM minutes."""
        try:
            kernel = await self._compute.run(
                build, work.module, proposal.trace, self._target, timeout_s=BUILD_S
            )
        except ComputeFailed:
            return None
        return None if isinstance(kernel, Failure) else kernel

    def _kept(self, work: Workload, proposal: Proposal, latency: float | None) -> Trial:
        trial = Trial(
            work.digest, work.name, self._target, proposal.trace, proposal.digest, proposal.features, latency
        )
        self._trials.add(trial)
        return trial

    def _learn(self, trials: Sequence[Trial]) -> None:
        samples = []
        for trial in trials:
            latency, slowest = trial.latency_s, self._trials.slowest(trial.workload)
            if latency is None and slowest is not None:
                latency = slowest * FAILED
            if latency is not None and trial.features:
                samples.append(Sample(trial.features, latency, trial.workload))
        if samples:
            self._cost_model = update(samples, self._cost_model)


async def tune(threads: int, names: Sequence[str], only: Sequence[str], seconds: float) -> None:
    """Give each model a round in turn until the time is over or nothing is left to try."""
    began = time.monotonic()
    async with kernel_timer(CORES[threads]) as timer, hub_compute() as compute:
        tuner = Tuner(threads, timer, compute)
        models = await tuner.operators(names, only)
        if set(names) == set(MODELS) and not any(only):
            forget(threads, but={one.work.digest for operators in models.values() for one in operators})
        while time.monotonic() - began < seconds and models:
            for name in list(models):
                operators = models[name]
                task = most_promising([one.task for one in operators], KNOBS, speculate=False)
                if task is None:
                    del models[name]
                    continue
                operator = operators[task.index]
                before, started = task.best, time.monotonic()
                await tuner.round(operator)
                _report(name, operators, operator, before, time.monotonic() - started)


@asynccontextmanager
async def hub_compute() -> AsyncIterator[Compute]:
    """Provide the hub's own pool of warm processes, with one of them."""
    compute = Compute(WarmPool(1, cores=[SEARCH_CORE]), slots=1)
    try:
        await compute.start()
        yield compute
    finally:
        await compute.close()


def _report(name: str, operators: list[Operator], one: Operator, before: float | None, took_s: float) -> None:
    total = sum(each.task.best * each.work.weight for each in operators if each.task.best)
    best = one.task.best or float("inf")
    print(
        f"{name:16} {total * 1e3:8.3f} ms | {one.work.weight} x {one.work.name[:44]:44} "
        f"{'' if before is None else f'{before * 1e6:8.1f}':>8} -> {best * 1e6:8.1f} us "
        f"{one.work.flops / best / 1e9:6.1f} GFLOP/s {one.task.trials:5} trials {took_s:5.1f} s",
        flush=True,
    )


def _named(work: Workload, parts: Sequence[str]) -> bool:
    return any(part in work.name for part in parts)


def _archived(trial: Trial, latency_s: float) -> Archived:
    return Archived(trial.workload, trial.name, trial.target, trial.trace, latency_s)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--threads", type=int, choices=sorted(CORES), default=1)
    parser.add_argument("--models", default=",".join(MODELS), help="separated by commas")
    parser.add_argument("--only", default="", help="parts of the names of operators, separated by commas")
    given = parser.parse_args()
    os.sched_setaffinity(0, {SEARCH_CORE})
    try:
        asyncio.run(tune(given.threads, given.models.split(","), given.only.split(","), given.hours * 3600))
    except KeyboardInterrupt:
        print("stopped; everything tried is kept")


if __name__ == "__main__":
    main()
