"""The real scheduler in a simulated world: many boxes, many jobs, rough weather."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resonator.messages import JobState
from resonator_hub.scheduler import Scheduler, commands, events
from resonator_hub.scheduler.policies import POLICIES
from simulation.fleets import fleet
from simulation.simulator import Simulator, Stages

TESTS = Path(__file__).parents[1]


def test_a_thousand_devices_and_two_hundred_jobs_in_rough_weather_all_end() -> None:
    # Given
    world = fleet(devices=1000, jobs=200, slots=64)
    # When
    world.run(until=1e5)
    # Then the simulator has checked budgets, epochs, windows and records on the way
    states = [world.scheduler.status(job) for job in world.budgets]
    assert {status.state for status in states} == {JobState.SUCCEEDED}
    for status in states:
        assert status.trials <= status.budget
        assert world.record_of[status.job] <= status.trials
        assert status.tuned is not None
    assert sum(world.record_of.values()) > 0.9 * sum(world.budgets.values())


@pytest.mark.parametrize("policy", list(POLICIES))
def test_under_every_policy_a_small_fleet_in_rough_weather_ends_its_jobs(policy: str) -> None:
    world = fleet(devices=20, jobs=10, slots=4, policy=policy)
    world.run(until=1e6)
    assert len(world.ended) == 10


def test_the_same_events_give_the_same_commands_whatever_the_hash_seed() -> None:
    # Given two processes that hash strings differently
    answers = []
    for hash_seed in ("1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(TESTS)}
        # When both play the same world
        answers.append(
            subprocess.run(
                [sys.executable, "-m", "simulation.fleets"],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
                timeout=120,
            ).stdout
        )
    # Then
    assert answers[0] == answers[1]
    assert answers[0].startswith("12 ")


def test_a_journal_folded_through_a_fresh_scheduler_is_the_live_state() -> None:
    # Given a world stopped half way
    world = fleet(devices=30, jobs=12, slots=4)
    world.journal = []
    while len(world.ended) < 3:
        world.run(until=world.now + 5.0)
    assert 0 < len(world.ended) < 12
    # When its journal is written, read and folded
    fresh = Scheduler(world.policy, world.knobs)
    kept = []
    for event in world.journal:
        again = events.from_json(type(event).__name__, events.to_json(event))
        kept += [one for one in fresh.step(again) if isinstance(one, commands.Record)]
    # Then
    assert fresh.statuses(100) == world.scheduler.statuses(100)
    assert fresh.devices() == world.scheduler.devices()
    assert {one.result.candidate for one in kept} == set(world.records)


def test_two_jobs_on_one_device_load_aware_is_no_slower_than_sequential(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Given two equal jobs, one box and one compute slot, in each of two regimes
    makespans: dict[str, dict[str, float]] = {}
    regimes = {
        "compute-bound": Stages(select=4.0, build=0.3, profile=0.3),
        "device-bound": Stages(select=2.0, build=0.1, profile=1.0),
    }
    # When each policy runs them
    for regime, stages in regimes.items():
        for policy in POLICIES:
            world = Simulator(policy=policy, stages=stages, slots=1)
            world.add_box("lab/a")
            for name in ("one", "two"):
                world.add_job(name, tasks=2, trials=64)
            world.run(until=1e5)
            makespans.setdefault(regime, {})[policy] = max(world.ended.values())
    # Then
    with capsys.disabled():
        for regime, spans in makespans.items():
            print(f"\n{regime}: " + ", ".join(f"{name} {span:.0f} s" for name, span in spans.items()))
    for spans in makespans.values():
        assert spans["load_aware"] <= spans["sequential"]
        assert spans["load_aware"] <= 1.06 * min(spans.values())


def test_priority_buys_device_seconds_and_nobody_starves() -> None:
    # Given a busy box and two jobs, one far more urgent
    world = Simulator(stages=Stages(select=0.5, build=0.02, profile=1.0), slots=4)
    world.add_box("lab/a")
    low = world.add_job("low", trials=400, priority=3)
    high = world.add_job("high", trials=400, priority=7)
    # When they have shared it for a while
    world.run(until=400.0, all_jobs=False)
    # Then the urgent one has had about four times the seconds, and the other some
    ratio = world.record_of[high] / world.record_of[low]
    assert 2.5 < ratio < 6.0


def test_a_time_budget_ends_a_job_early_and_still_delivers() -> None:
    world = Simulator(slots=1)
    world.add_box("lab/a")
    job = world.add_job("hasty", trials=100_000, time_s=120.0)
    world.run(until=1e4)
    status = world.scheduler.status(job)
    assert status.state is JobState.SUCCEEDED
    assert world.ended[job] < 180.0
    assert status.trials < 100_000
