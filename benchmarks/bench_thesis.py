"""The 2019 thesis' experiment on a simulated clock: its stage times, under our policies and its bundling.

A job has 13 tasks of 2000 trials in rounds of 64; there is one compute slot and one device. A round takes
44.0 s of selection and update, 8.3 s of building (52.3 s of the slot) and 39.5 s of the device, each step
give or take a tenth. The slot is the bound: a schedule that never lets it rest is perfect. QUICK=1 makes it
200 trials.
"""

from __future__ import annotations

import sys
from pathlib import Path

from figures import Figure, keep, quick

from resonator_hub.scheduler import Knobs
from resonator_hub.scheduler.policies import POLICIES, Greedy

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from simulation.simulator import Simulator, Stages

TASKS, TRIALS, ROUND = 13, 200 if quick() else 2000, 64
SEARCH_S, BUILD_S, PROFILE_S = 44.0, 8.3, 39.5
UPDATE_S = 1.0
"""How the 44.0 s are divided does not matter: one slot does both."""

STAGES = Stages(
    select=SEARCH_S - UPDATE_S,
    update=UPDATE_S,
    build=BUILD_S / ROUND,
    profile=PROFILE_S / ROUND,
    spread=0.1,
)
KNOBS = Knobs(batch=ROUND, least_batch=ROUND, stretch=1, quiet_rounds=10**9)
"""Rounds of a fixed size, and every trial spent."""

GOALS_H = {1: 7.9, 2: 16.7}
OVER_BOUND = {1: 7.9 / 7.44, 2: 16.7 / 15.9}
"""The issue's goals over its bounds. Its hours do not follow from its stage means, the ratios can be kept."""


class Bundling(Greedy):
    """The thesis' own way: a whole built batch goes to the device at once, and its results come back so."""

    name = "bundling"
    streams = False


def main() -> None:
    POLICIES[Bundling.name] = Bundling()
    makespans = {(policy, jobs): replay(policy, jobs) for policy in POLICIES for jobs in (1, 2)}
    figures = []
    for (policy, jobs), makespan_s in makespans.items():
        name = f"thesis replay, {policy}, {_jobs(jobs)}"
        goal = GOALS_H[jobs] if policy == "load_aware" and not quick() else None
        figures.append(Figure(name, makespan_s / 3600, "h", goal))
    for jobs in (1, 2):
        ours = makespans["load_aware", jobs]
        for policy in ("sequential", Bundling.name):
            name = f"thesis replay, {_jobs(jobs)}: load_aware / {policy}"
            figures.append(Figure(name, ours / makespans[policy, jobs], "x"))
        name = f"thesis replay, {_jobs(jobs)}: load_aware / bound"
        figures.append(Figure(name, ours / bound_s(jobs), "x", OVER_BOUND[jobs]))
    keep("thesis", figures)


def replay(policy: str, jobs: int) -> float:
    """Play the jobs, submitted together, and return the seconds until the last one has ended."""
    world = Simulator(policy=policy, knobs=KNOBS, stages=STAGES, slots=1, seed=1)
    device = world.add_box("lab/board")
    for number in range(jobs):
        world.add_job(f"model{number}", tasks=TASKS, trials=TASKS * TRIALS)
    world.run()
    assert all(spent == TASKS * TRIALS for spent in world.selected.values()), "every trial is spent"
    makespan_s = max(world.ended.values())
    print(
        f"{policy:10} {_jobs(jobs):8} {makespan_s / 3600:6.2f} h (bound {bound_s(jobs) / 3600:.2f}); "
        f"slot busy {world.compute_busy_s / makespan_s:.1%}, device {device.busy_s / makespan_s:.1%}",
        flush=True,
    )
    return makespan_s


def bound_s(jobs: int) -> float:
    """Return the seconds that the busier of slot and device works at the mean stage times."""
    return jobs * TASKS * TRIALS / ROUND * max(SEARCH_S + BUILD_S, PROFILE_S)


def _jobs(count: int) -> str:
    return "one job" if count == 1 else "two jobs"


if __name__ == "__main__":
    main()
