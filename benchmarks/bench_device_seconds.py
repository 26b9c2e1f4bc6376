"""Device-seconds per trial: Resonator's profiler against TVM's RPC and local runners on the same kernels.

The device is core 1 on all sides; how long it was occupied counts, loading included, start-up not. Resonator
has the race limit of a tuning run: 1.5 times the best latency so far. QUICK=1 takes 60 kernels, not 200.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import referee
from figures import Figure, keep, quick
from fleets import DEVICE_CORE, HUB_CORE, fleet_of_tvm, need_two_cores, on, target
from kernel_set import Built, make, pack
from operators import OPERATORS
from peer_runners import TIMING

from resonator.jobspec import Measure
from resonator.messages import BlobRef, KernelPush
from resonator.tensors import TensorSpec
from resonator_agent.profiler import Profiler, Run
from resonator_agent.worker_process import Limits
from resonator_hub.scheduler.knobs import Knobs

KERNELS = 60 if quick() else 200
TOP = 5 if quick() else 10
ROUNDS = 5 if quick() else 15
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Side:
    """What one side measured: the device's seconds for all kernels, and the latency of each in seconds."""

    name: str
    seconds: float
    latencies: list[float | None]
    raced: int = 0

    def ranked(self, kernels: Sequence[Built], operator: str) -> list[int]:
        """Return the kernels of an operator, fastest first."""
        own = [n for n, kernel in enumerate(kernels) if kernel.operator == operator]
        return sorted((n for n in own if self.latencies[n]), key=lambda n: self.latencies[n] or 0.0)


def main() -> None:
    need_two_cores()
    os.sched_setaffinity(0, {int(HUB_CORE)})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kernels = make(folder, KERNELS, target(), lambda some: ours(folder, some).latencies)
        runs = [ours(folder, kernels)]
        rpc = tvm_over_rpc(kernels)
        runs.append(ours(folder, kernels))
        local = tvm_runners(on(DEVICE_CORE, peer("local")), kernels, "TVM's local runner")
        runs.append(ours(folder, kernels))
        resonator = sorted(runs, key=lambda run: run.seconds)[1]
        keep("device_seconds", compare(kernels, resonator, [rpc, local]))


# --- the sides ----------------------------------------------------------------------------------------------


def ours(folder: Path, kernels: Sequence[Built]) -> Side:
    """Measure with the agent's profiler, one kernel after the other."""
    side = asyncio.run(_profile(folder, kernels))
    print(f"Resonator: {side.seconds:.2f} s, {side.raced} of {len(kernels)} raced", flush=True)
    return side


async def _profile(folder: Path, kernels: Sequence[Built]) -> Side:
    profiler = Profiler(Limits((int(DEVICE_CORE),), 4 * 2**30, max_foreign_load=1.0), folder)
    await profiler.start()
    best: dict[str, float] = {}
    latencies: list[float | None] = []
    raced = 0
    began = time.monotonic()
    for kernel in kernels:
        limit = best[kernel.operator] * Knobs().race if kernel.operator in best else None
        outcome = await profiler.run(_run(kernel, limit))
        assert outcome is not None, "nobody stops it"
        latencies.append(median(outcome.latencies) if outcome.latencies else None)
        raced += outcome.raced
        if latencies[-1] is not None:
            best[kernel.operator] = min(latencies[-1], best.get(kernel.operator, latencies[-1]))
    seconds = time.monotonic() - began
    await profiler.close()
    return Side("Resonator", seconds, latencies, raced)


def _run(kernel: Built, race_s: float | None) -> Run:
    library = Path(kernel.library)
    push = KernelPush(
        epoch=1,
        job="bench",
        candidate=f"bench/{library.stem[:16]}",
        blob=BlobRef(digest=library.stem, size=library.stat().st_size),
        arguments=tuple(TensorSpec(name="a", shape=tuple(s), dtype=d) for s, d in kernel.arguments),
        race_s=race_s,
    )
    return Run(push, Measure(**TIMING), library)


def tvm_over_rpc(kernels: Sequence[Built]) -> Side:
    """Measure with TVM's RPCRunner over its tracker and server."""
    with fleet_of_tvm() as tracker:
        return tvm_runners(on(HUB_CORE, peer("rpc", str(tracker))), kernels, "TVM's RPC runner")


def peer(*arguments: str) -> list[str]:
    return [sys.executable, "peer_runners.py", *arguments]


def tvm_runners(command: list[str], kernels: Sequence[Built], name: str) -> Side:
    """Measure with one of TVM's runners."""
    environment = {**os.environ, "TVM_NUM_THREADS": "1"}
    done = subprocess.run(
        command, input=pack(kernels), text=True, stdout=subprocess.PIPE, check=True, cwd=HERE, env=environment
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {answer['seconds']:.2f} s", flush=True)
    return Side(name, answer["seconds"], answer["latencies"])


# --- the comparison -----------------------------------------------------------------------------------------


def compare(kernels: Sequence[Built], resonator: Side, peers: Sequence[Side]) -> list[Figure]:
    """Compare times, winners and the latencies of the fastest; these are timed once more by a referee."""
    sides = [resonator, *peers]
    tops = {
        (side.name, operator): side.ranked(kernels, operator)[:TOP]
        for side in sides
        for operator in OPERATORS
    }
    finalists = sorted({number for top in tops.values() for number in top})
    again = referee.latencies([kernels[n] for n in finalists], ROUNDS, TIMING["min_repeat_ms"])
    truth = dict(zip(finalists, again, strict=True))

    count = len(kernels)
    figures = [
        Figure(f"{side.name}: device time a trial, {count} kernels", side.seconds / count * 1e3, "ms")
        for side in sides
    ]
    figures.append(
        Figure("Resonator: share of the kernels that single runs ruled out", resonator.raced / count, "")
    )
    for side in peers:
        figures += _against(side, resonator, tops, truth)
        figures.append(
            Figure(
                f"device time a trial, Resonator / {side.name}", resonator.seconds / side.seconds, "x", 0.25
            )
        )
    figures += _errors(sides, tops, truth)
    return figures


def _against(
    peer: Side, ours: Side, tops: dict[tuple[str, str], list[int]], truth: dict[int, float]
) -> list[Figure]:
    winners = [(tops[ours.name, operator][0], tops[peer.name, operator][0]) for operator in OPERATORS]
    same = sum(mine == theirs for mine, theirs in winners)
    worst = max(truth[mine] / truth[theirs] for mine, theirs in winners)
    apart = [_apart(ours, peer, number) for operator in OPERATORS for number in tops[peer.name, operator]]
    return [
        Figure(f"operators with the winner of {peer.name}, of {len(winners)}", same, "", len(winners), True),
        Figure(f"winner timed again, Resonator / {peer.name}, worst operator", worst, "x", 1.01),
        Figure(f"top {TOP} of {peer.name}: Resonator's latencies, median difference", median(apart), ""),
        Figure(f"top {TOP} of {peer.name}: Resonator's latencies, largest difference", max(apart), "", 0.02),
    ]


def _apart(one: Side, other: Side, number: int) -> float:
    mine, theirs = one.latencies[number], other.latencies[number]
    return abs(mine / theirs - 1.0) if mine and theirs else 1.0


def _errors(
    sides: Sequence[Side], tops: dict[tuple[str, str], list[int]], truth: dict[int, float]
) -> list[Figure]:
    """Compare each side's latencies with the referee's, so that noise is told from bias."""
    figures = []
    for side in sides:
        ratios = [
            (side.latencies[number] or 0.0) / truth[number] - 1.0
            for operator in OPERATORS
            for number in tops[side.name, operator]
        ]
        figures += [
            Figure(f"{side.name}: its top {TOP} against the referee, median", median(ratios), ""),
            Figure(f"{side.name}: its top {TOP} against the referee, largest", max(map(abs, ratios)), ""),
        ]
    return figures


if __name__ == "__main__":
    main()
