"""Rounds of a job: when they end for good, how large they are, and whether they keep a device busy."""

from __future__ import annotations

import pytest

from resonator.messages import JobState
from resonator_hub.scheduler import Knobs
from resonator_hub.scheduler import commands as c
from simulation.busy import measuring_share
from simulation.simulator import Simulator, Stages


def one_box(*, stages: Stages, slots: int = 1, knobs: Knobs | None = None) -> Simulator:
    world = Simulator(stages=stages, slots=slots, knobs=knobs)
    world.add_box("lab/a")
    return world


def test_a_job_that_gains_nothing_any_more_ends_early_and_says_so() -> None:
    # Given candidates that are no better for being searched for, and a budget without end
    world = one_box(stages=Stages())
    job = world.add_job("endless", tasks=3, trials=100_000)
    # When
    world.run(until=1e7)
    # Then it has its result, after a second half of its trials that brought next to nothing
    status = world.scheduler.status(job)
    assert status.state is JobState.SUCCEEDED
    assert status.tuned is not None
    assert 320 < status.trials < 20_000
    assert status.stopped.startswith("the last ")
    assert status.stopped.endswith(" trials gained less than 1%")


def test_a_short_budget_is_spent_whatever_it_gains() -> None:
    world = one_box(stages=Stages())
    job = world.add_job("short", tasks=1, trials=300)
    world.run(until=1e7)
    status = world.scheduler.status(job)
    assert (status.trials, status.stopped) == (300, "the trials of its budget are used")


@pytest.mark.parametrize(
    ("select_s", "sizes"),
    [(0.1, {8}), (2.5, {12}), (100.0, {32})],
    ids=["cheap search", "fair search", "dear search"],
)
def test_rounds_are_larger_where_the_search_costs_more(select_s: float, sizes: set[int]) -> None:
    # Given kernels that take 0.7 s each to build and measure, and a quarter for the search
    world = one_box(stages=Stages(select=select_s, update=0.1, build=0.3, profile=0.4))
    counts = selected_counts(world)
    # When
    world.add_job("job", tasks=1, trials=300)
    world.run(until=1e7)
    # Then the rounds between the first ones and the last are as large as that allows
    assert set(counts[6:-2]) == sizes


def test_rounds_do_not_outgrow_what_a_task_has_behind_it() -> None:
    world = one_box(stages=Stages(select=100.0))
    counts = selected_counts(world)
    world.add_job("job", tasks=1, trials=300)
    world.run(until=1e7)
    assert counts[:4] == [16, 16, 16, 24]


@pytest.mark.parametrize(
    ("slots", "stages"),
    [
        (1, Stages(select=3.0, build=0.1, profile=0.7, spread=0.1)),
        (2, Stages(select=8.0, build=0.3, profile=0.7, spread=0.1)),
        (4, Stages(select=20.0, build=0.1, profile=0.7, spread=0.1)),
        (1, Stages(select=0.05, build=0.01, update=0.02, profile=0.1, spread=0.1)),
    ],
    ids=["one slot", "two slots", "long selections side by side", "short kernels"],
)
def test_one_task_alone_keeps_its_device_busy(slots: int, stages: Stages) -> None:
    # Given compute that suffices, if rounds are selected before the last results are in
    world = one_box(stages=stages, slots=slots)
    world.journal = []
    world.add_job("job", tasks=1, trials=320)
    # When
    world.run()
    # Then
    assert measuring_share(world.journal) > 0.95


def selected_counts(world: Simulator) -> list[int]:
    counts: list[int] = []
    perform = world._perform

    def watch(command: c.Command) -> None:
        if isinstance(command, c.Select):
            counts.append(command.count)
        perform(command)

    world._perform = watch  # type: ignore[method-assign]
    return counts
