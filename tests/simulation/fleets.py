"""Worlds that several tests play."""

from __future__ import annotations

import sys

from resonator.jobspec import TargetSpec
from simulation.simulator import Faults, Simulator, Stages

ROUGH = Faults(dirty=0.02, refused=0.01, kernel=0.05, build=0.03, loss_every_s=600.0, outage_s=60.0)


def fleet(
    *, devices: int, jobs: int, slots: int, faults: Faults = ROUGH, policy: str = "load_aware"
) -> Simulator:
    """Boxes of twenty models under ten sites; every third job takes any, the others one model."""
    world = Simulator(policy=policy, slots=slots, stages=Stages(spread=0.3), faults=faults, seed=7)
    for n in range(devices):
        world.add_box(f"site{n % 10}/box{n}", labels=(("model", f"m{n % 20}"),), at=n * 0.01)
    for n in range(jobs):
        target = TargetSpec(kind="cpu") if n % 3 == 0 else TargetSpec(labels={"model": f"m{n % 20}"})
        world.add_job(f"job{n}", tasks=1 + n % 5, trials=64, at=n * 0.5, target=target, priority=n % 10)
    return world


if __name__ == "__main__":
    small = fleet(devices=40, jobs=12, slots=6)
    small.run(until=1e5)
    sys.stdout.write(f"{len(small.ended)} {small.digest()}\n")
