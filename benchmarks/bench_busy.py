"""How much of the time the devices measure when the hub's compute is not what they wait for.

On a simulated clock: several boards and jobs with enough compute slots, under every policy. In earnest: a hub
whose kernels were built before, and one agent that measures them on its own core; what remains is scheduler,
journal, bus, staging, and the windows in between. The time counts from the first kernel's result to the
last's. QUICK=1 measures fewer kernels, once.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import bench_latency
import fleets
import mixed_kernels
from figures import Figure, keep, quick

from resonator_hub.database import Database
from resonator_hub.journal import JOURNAL, Journal
from resonator_hub.scheduler.policies import POLICIES

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from simulation.busy import measuring_share
from simulation.simulator import Simulator, Stages

HERE = Path(__file__).parent
GOAL = 0.95
BOARDS, JOBS, TASKS, TRIALS, SLOTS = 4, 3, 8, 960, 8
STAGES = Stages(select=6.0, build=0.3, update=0.5, profile=0.5, spread=0.3)
"""Seconds as measured here; eight slots make 16 kernels a second at most, four boards measure eight."""

KERNELS = 16
REAL_TRIALS, RUNS = (96, 1) if quick() else (256, 3)


def main() -> None:
    fleets.need_two_cores()
    figures = []
    for policy in POLICIES:
        goal = GOAL if policy == "load_aware" else None
        name = f"busy devices, {BOARDS} simulated boards, {policy}"
        figures.append(Figure(name, simulated(policy), "of the time", goal, more_is_better=True))
    with tempfile.TemporaryDirectory() as temporary:
        kernels = Path(temporary)
        mixed_kernels.make(kernels, KERNELS)
        shares = [real(kernels) for _ in range(RUNS)]
    name = "busy device, prebuilt kernels on a real one"
    figures.append(Figure(name, statistics.median(shares), "of the time", GOAL, more_is_better=True))
    keep("busy", figures)


def simulated(policy: str) -> float:
    """Play the boards and return the share of their time in which they measured."""
    world = Simulator(policy=policy, stages=STAGES, slots=SLOTS, seed=1)
    world.journal = []
    for number in range(BOARDS):
        world.add_box(f"lab/board{number}")
    for number in range(JOBS):
        world.add_job(f"job{number}", tasks=TASKS, trials=TRIALS)
    world.run()
    return measuring_share(world.journal)


def real(kernels: Path) -> float:
    """Run a job of prebuilt kernels and return the share of the time in which its device measured."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, port = Path(temporary), fleets.free_port()
        hub = [sys.executable, str(HERE / "prebuilt_hub.py"), str(kernels), f"{folder}/hub", str(port)]
        with fleets.running(fleets.on(fleets.HUB_CORE, hub)):
            fleets.await_port(port)
            bench_latency.measure(folder, port, mixed_kernels.model(), REAL_TRIALS, far=False)
        database = Database.read(folder / "hub" / JOURNAL)
        share = measuring_share(Journal(database).events())
        database.close()
    print(f"prebuilt kernels: {share:.1%} of the time measuring", flush=True)
    return share


if __name__ == "__main__":
    main()
