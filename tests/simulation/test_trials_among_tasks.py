"""Trials go where they gain most: against the plateau rule, on synthetic searches of known kinds."""

from __future__ import annotations

from math import exp, log
from statistics import mean

import pytest

from resonator_hub.scheduler.task import Task, most_promising
from simulation.curves import KNOBS, Model, Plateau

SEEDS = range(40)


def promise(tasks: list[Task]) -> Task:
    chosen = most_promising(tasks, KNOBS, speculate=False)
    assert chosen is not None, "no task is exhausted"
    return chosen


@pytest.mark.parametrize("budget", [512, 1024, 2048])
def test_expected_gain_beats_the_plateau_rule_at_equal_trials_and_to_equal_latency(
    budget: int, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given the same searches under either rule
    ours = [Model(seed).tune(budget, promise) for seed in SEEDS]
    theirs = [Model(seed).tune(budget, Plateau()) for seed in SEEDS]
    # When both have spent the same trials
    ratios = [one.curve[-1][1] / other.curve[-1][1] for one, other in zip(ours, theirs, strict=True)]
    shares = [
        one.trials_to(other.curve[-1][1]) / other.trials_to(other.curve[-1][1])
        for one, other in zip(ours, theirs, strict=True)
    ]
    # Then ours is faster on the whole, and needed fewer trials to be as fast as the other
    latency = exp(mean(map(log, ratios)))
    with capsys.disabled():
        print(
            f"\n{budget} trials: latency {latency:.3f} of the plateau rule's, reached in {mean(shares):.0%}"
        )
    assert latency < 0.985
    assert mean(shares) < 0.9
    assert sum(ratio <= 1.0 for ratio in ratios) > 0.6 * len(ratios)


def test_no_task_is_left_for_good() -> None:
    model = Model(1).tune(20_000, promise)
    assert min(task.rounds for task in model.tasks) > 10
