"""Undisturbed measurement: the latency of a fixed model while another job is tuned on the box, against alone.

Both are measured in turns, and each time beside another job is compared with the times alone before and after
it: the machine's clocks drift by more than is to be found. Beside it TVM, where nothing keeps two jobs on one
device apart: its local runner measures a fixed kernel alone, and while another has the same core. QUICK=1
makes one turn, not six.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

import mixed_kernels
from figures import Figure, keep, quick
from fleets import DEVICE_CORE, HUB_CORE, fleet_of_resonator, need_two_cores, on
from operators import convolution, model

from resonator import jobspec
from resonator.client import Client
from resonator.jobspec import Measure

ROUNDS = 1 if quick() else 6
TIMES = 2
MEASURE = Measure(number=3, repeat=20, min_repeat_ms=100)
KERNELS = 4
HERE = Path(__file__).parent
Latencies = dict[str, list[list[float]]]
"""In seconds: `shared`, and `alone` before, between and after these."""


def main() -> None:
    need_two_cores()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with fleet_of_resonator(folder) as broker:
            os.sched_setaffinity(0, {int(HUB_CORE)})  # not before: the agent inherits it
            ours = asyncio.run(resonator(folder, broker))
        theirs = tvm(folder)
    keep(
        "undisturbed",
        [*_figures("Resonator", ours, 1.01), *_figures("TVM, two unscheduled jobs", theirs, None)],
    )


def _figures(side: str, found: Latencies, goal: float | None) -> list[Figure]:
    alone, shared = ([one for block in found[which] for one in block] for which in ("alone", "shared"))
    ratios = [
        median(one) / mean([median(before), median(after)])
        for one, (before, after) in zip(found["shared"], pairwise(found["alone"]), strict=True)
    ]
    return [
        Figure(f"{side}: latency alone", median(alone) * 1e6, "us"),
        Figure(f"{side}: latency while another job runs", median(shared) * 1e6, "us"),
        Figure(f"{side}: spread of the latencies alone", _spread(alone), ""),
        Figure(f"{side}: worst turn while another job runs / alone", max(ratios), "x"),
        Figure(f"{side}: latency while another job runs / alone", median(ratios), "x", goal),
    ]


def _spread(values: list[float]) -> float:
    return (max(values) - min(values)) / median(values)


async def resonator(folder: Path, broker: str) -> Latencies:
    """Have a bundle measured in windows of its own, in turns alone and beside a job that is tuned."""
    async with Client.connect(broker) as client:
        bundle = await _tuned(client, folder)
        found: Latencies = {"alone": [await _measured(client, bundle)], "shared": []}
        for number in range(ROUNDS):
            rival = await _rival(client, folder, number)
            found["shared"].append(await _measured(client, bundle))
            status = await client.cancel(rival)
            assert not status.failure, status.failure
            print(f"Resonator: the other job had {status.trials} trials meanwhile", flush=True)
            await client.wait(rival)
            found["alone"].append(await _measured(client, bundle))
    return found


async def _tuned(client: Client, folder: Path) -> Path:
    """Return the bundle that is measured, of a short tuning job."""
    job = await client.wait(await _submit(client, folder, "fixed", model("conv3x3"), 8))
    await client.fetch(job.job, folder / "fixed.bundle")
    return folder / "fixed.bundle"


async def _rival(client: Client, folder: Path, number: int) -> str:
    """Start to tune an operator that is new to the hub; return the job's id as soon as it is measured."""
    other = convolution(64, 80 + 16 * number, 3, pixels=56)
    job = await _submit(client, folder, f"rival{number}", other, 10_000)
    async for status in client.follow(job):
        assert not status.state.ended, status
        if status.trials > 0:
            break
    return job


async def _submit(client: Client, folder: Path, name: str, onnx: bytes, trials: int) -> str:
    path = folder / f"{name}.onnx"
    path.write_bytes(onnx)
    spec = {"model": {"onnx": path.name}, "target": {"kind": "cpu"}, "budget": {"trials": trials}}
    return await client.submit(jobspec.validate({"metadata": {"name": name}, "spec": spec}), path)


async def _measured(client: Client, bundle: Path) -> list[float]:
    latencies = []
    for _ in range(TIMES):
        status = await client.wait(await client.bench(bundle, measure=MEASURE))
        assert status.tuned is not None, status.failure
        print(f"Resonator: {status.tuned.median * 1e6:.1f} us", flush=True)
        latencies.append(status.tuned.median)
    return latencies


def tvm(folder: Path) -> Latencies:
    """Have TVM's local runner measure a kernel, in turns alone and beside another such runner."""
    kernels = folder / "kernels"
    kernels.mkdir()
    mixed_kernels.make(kernels, KERNELS)
    command = [sys.executable, "peer_sharing.py", str(kernels), str(5 * TIMES), str(ROUNDS)]
    environment = {**os.environ, "TVM_NUM_THREADS": "1"}
    done = subprocess.run(
        on(DEVICE_CORE, command), stdout=subprocess.PIPE, check=True, cwd=HERE, env=environment
    )
    found: Latencies = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
