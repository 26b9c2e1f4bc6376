"""The scheduler's time for an event, by the size of the fleet: a simulated clock, rough weather."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from figures import Figure, keep, quick

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from simulation.fleets import fleet

FLEETS = ((100, 20, 16), (1_000, 200, 64), (10_000, 1_000, 256))
"""Devices, jobs and compute slots."""


def main() -> None:
    figures = []
    for devices, jobs, slots in FLEETS[: 2 if quick() else 3]:
        world = fleet(devices=devices, jobs=jobs, slots=slots)
        began = time.perf_counter()
        world.run(until=2e5)
        took_s = time.perf_counter() - began
        assert len(world.ended) == jobs, "every job ends"
        name = f"scheduler, {devices} devices and {jobs} jobs"
        figures.append(Figure(name, world.scheduler_s / world.steps * 1e6, "us an event", goal=100))
        print(f"{name}: {world.steps} events, {world.now / 3600:.1f} h simulated in {took_s:.1f} s")
    keep("scheduler", figures)


if __name__ == "__main__":
    main()
