"""Warm start: what the records of similar operators save a new one, and the same job asked for twice.

Each pair is one operator tuned before and a similar one to be tuned: cold, knowing nothing, and warm, with
the cost model and the best schedules of the first. What counts is how many trials each needs for 95 % of the
speed at which the cold start ends. A hub is given one job twice. QUICK=1 takes one seed and fewer trials.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from math import prod
from pathlib import Path

import fleets
from figures import Figure, keep, quick
from operators import convolution, model
from rig import BATCH, HINTS, Knowledge, Trial, best, device, tune

from resonator_hub import warm
from resonator_hub.frontends import Workload
from resonator_hub.frontends.onnx import extract

PAIRS = {
    "conv3x3 128->128 @28 after 64->64 @56": ((64, 64, 3, 56), (128, 128, 3, 28)),
    "conv1x1 256->128 @28 after 256->64 @56": ((256, 64, 1, 56), (256, 128, 1, 28)),
    "depthwise 3x3 256 @28 after 128 @56": ((128, 128, 3, 56, 128), (256, 256, 3, 28, 256)),
}
SEEDS = (1,) if quick() else (1, 2, 3)
TRIALS = 32 if quick() else 64
SHARE = 0.95
"""How much of the cold start's final speed has to be reached."""


def main() -> None:
    fleets.need_two_cores()
    first_s, again_s, trials = same_job_twice()
    os.sched_setaffinity(0, {int(fleets.HUB_CORE)})
    warm.load()
    ratios: list[float] = []
    shares: list[float] = []
    firsts: list[float] = []
    figures = []
    for name, (known, new) in PAIRS.items():
        runs = [compare(name, known, new, seed) for seed in SEEDS]
        firsts += [first_round(warmed) / first_round(cold) for cold, warmed in runs]
        needs = [needs_of(cold, warmed) for cold, warmed in runs]
        ratios += [warm_needs / cold_needs for cold_needs, warm_needs in needs]
        shares += [warm_needs / TRIALS for _, warm_needs in needs]
        cold, warmed = (sum(column) / len(needs) for column in zip(*needs, strict=True))
        figures.append(Figure(f"{name}: trials to {SHARE:.0%}, cold", cold, "trials"))
        figures.append(Figure(f"{name}: trials to {SHARE:.0%}, warm", warmed, "trials"))
    keep(
        "warm_start",
        [
            *figures,
            Figure("a job for the first time", first_s, "s"),
            Figure("the same job again, from records", again_s, "s", goal=10.0),
            Figure("the same job again: trials", trials, "trials", goal=0),
            Figure("similar operators: mean latency of the first round, warm / cold", mean(firsts), "x"),
            Figure(
                f"similar operators: trials to {SHARE:.0%}, warm / all of a cold start", mean(shares), "x"
            ),
            Figure(
                f"similar operators: trials to {SHARE:.0%}, warm / cold to the same",
                mean(ratios),
                "x",
                goal=0.5,
            ),
        ],
    )


Shape = tuple[int, ...]


def mean(ratios: list[float]) -> float:
    """Return the geometric mean."""
    return float(prod(ratios) ** (1 / len(ratios)))


def compare(name: str, known: Shape, new: Shape, seed: int) -> tuple[list[Trial], list[Trial]]:
    """Return the trials of a cold and of a warm start."""
    target = fleets.target()
    before, work = operator(known, target), operator(new, target)
    with device() as box:
        past, learned = tune(before, target, box, TRIALS, seed)
        cold, _ = tune(work, target, box, TRIALS, seed)
        hints = tuple(one.trace for one in best(past, HINTS))
        warmed, _ = tune(work, target, box, TRIALS, seed, Knowledge(learned, hints))
    needs = needs_of(cold, warmed)
    ends = [best(trials, 1)[0].latency_s * 1e6 for trials in (cold, warmed)]
    print(
        f"{name}, seed {seed}: cold {ends[0]:.0f} us, within {SHARE:.0%} of it after {needs[0]} trials; "
        f"warm {ends[1]:.0f} us, after {needs[1]}",
        flush=True,
    )
    return cold, warmed


def needs_of(cold: list[Trial], warmed: list[Trial]) -> tuple[int, int]:
    """Return how many trials each start needs for `SHARE` of the cold one's final speed."""
    goal_s = best(cold, 1)[0].latency_s / SHARE
    return needed(cold, goal_s), needed(warmed, goal_s)


def first_round(trials: list[Trial]) -> float:
    """Return the mean latency of the first round, in seconds."""
    return mean([trial.latency_s for trial in trials[:BATCH] if trial.latency_s is not None])


def operator(shape: Shape, target: str) -> Workload:
    """Return the convolution of this shape as a task."""
    return extract(convolution(*shape), {}, target).tasks[0]


def needed(trials: list[Trial], goal_s: float) -> int:
    """Return after how many trials the goal was reached; all of them, and one more, where it was not."""
    for number, trial in enumerate(trials, 1):
        if trial.latency_s is not None and trial.latency_s <= goal_s:
            return number
    return len(trials) + 1


def same_job_twice() -> tuple[float, float, int]:
    """Return the seconds that a job takes at first and again on one hub, and the second's trials."""
    with tempfile.TemporaryDirectory() as name, fleets.fleet_of_resonator(Path(name)) as broker:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(model("conv1x1"))
        (folder / "job.yaml").write_text(json.dumps(JOB))
        command = fleets.resonator("submit", f"{folder}/job.yaml", "--broker", broker, "--wait", "--json")
        took, status = [], {}
        for _ in range(2):
            began = time.monotonic()
            done = subprocess.run(fleets.on(fleets.HUB_CORE, command), stdout=subprocess.PIPE, check=True)
            took.append(time.monotonic() - began)
            status = json.loads(done.stdout.splitlines()[-1])
            assert status["state"] == "succeeded", status
            print(f"job: {status['trials']} trials in {took[-1]:.1f} s ({status['stopped']})", flush=True)
    return took[0], took[1], int(status["trials"])


JOB = {
    "metadata": {"name": "again"},
    "spec": {
        "model": {"onnx": "model.onnx"},
        "target": {"kind": "cpu"},
        "budget": {"trials": TRIALS},
        "measure": {"number": 3, "repeat": 1, "min_repeat_ms": 100},
    },
}


if __name__ == "__main__":
    main()
