"""The scheduler's time for an event by the size of the fleet, and what it keeps of jobs that have ended.

The real scheduler on a simulated clock, in rough weather: boxes vanish, windows are refused, kernels fail.
The time may grow with the logarithm of the devices, the memory only by a status a job. QUICK=1 leaves out
the largest fleet.
"""

from __future__ import annotations

import gc
import math
import sys
import time
import tracemalloc
from pathlib import Path

from figures import Figure, keep, quick

from resonator_hub.scheduler import Knobs

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from simulation.fleets import ROUGH, fleet
from simulation.simulator import Simulator, Stages

FLEETS = ((100, 20, 16), (1_000, 200, 64), (10_000, 1_000, 256))
"""Devices, jobs and compute slots."""

WAVES, WAVE = 5, 40
"""Jobs that follow each other on a small fleet, to see what stays of them."""


def main() -> None:
    fleets = FLEETS[: 2 if quick() else 3]
    figures, times_us = [], []
    for devices, jobs, slots in fleets:
        times_us.append(event_us(devices, jobs, slots))
        name = f"scheduler, {devices} devices and {jobs} jobs"
        figures.append(Figure(name, times_us[-1], "us an event", goal=100))
    smallest, largest = fleets[0][0], fleets[-1][0]
    figures.append(
        Figure(
            f"scheduler, an event at {largest} devices / at {smallest}",
            times_us[-1] / times_us[0],
            "x",
            goal=math.log(largest) / math.log(smallest),
        )
    )
    figures.append(Figure("scheduler, kept of a job that has ended", kept_kb(), "kB", goal=2))
    keep("scheduler", figures)


def event_us(devices: int, jobs: int, slots: int) -> float:
    """Play a fleet until its jobs have ended; return the scheduler's mean processor time for an event."""
    world = fleet(devices=devices, jobs=jobs, slots=slots)
    began = time.perf_counter()
    world.run(until=2e5)
    took_s = time.perf_counter() - began
    assert len(world.ended) == jobs, "every job ends"
    print(f"{devices} devices: {world.steps} events, {world.now / 3600:.1f} h simulated in {took_s:.1f} s")
    return world.scheduler_s / world.steps * 1e6


def kept_kb() -> float:
    """Return by how many kB the memory in use grows with each job that comes and goes."""
    tracemalloc.start(1)
    knobs = Knobs(stories=200)  # which fill up in the first waves
    world = Simulator(stages=Stages(spread=0.3), faults=ROUGH, slots=16, seed=7, knobs=knobs)
    for number in range(50):
        world.add_box(f"lab/box{number}")
    used_kb = []
    for wave in range(WAVES):
        for number in range(WAVE):
            world.add_job(f"job{wave}-{number}", trials=32, at=world.now)
        world.run()
        world.records.clear()
        gc.collect()
        used_kb.append(tracemalloc.get_traced_memory()[0] / 1e3)
        print(f"{len(world.ended)} jobs have ended, {used_kb[-1]:.0f} kB in use")
    tracemalloc.stop()
    return (used_kb[-1] - used_kb[1]) / (WAVE * (WAVES - 2))


if __name__ == "__main__":
    main()
