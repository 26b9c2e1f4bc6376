"""Each policy's order, on plain data."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from resonator.ids import TaskId
from resonator_hub.scheduler.events import TaskFound
from resonator_hub.scheduler.knobs import Knobs
from resonator_hub.scheduler.policies import POLICIES, Ahead
from resonator_hub.scheduler.ranked import Ranked
from resonator_hub.scheduler.task import Task, most_promising


@dataclass
class Contender:
    number: int
    since: int
    compute_share: float
    device_share: float


EARLY = Contender(number=2, since=1, compute_share=9.0, device_share=9.0)
FRUGAL = Contender(number=1, since=5, compute_share=1.0, device_share=1.0)


@pytest.mark.parametrize(("policy", "first"), [("greedy", EARLY), ("fair", FRUGAL), ("load_aware", FRUGAL)])
def test_who_gets_a_device(policy: str, first: Contender) -> None:
    order = POLICIES[policy]
    ranked = sorted((EARLY, FRUGAL), key=lambda job: order.device_rank(job, since=job.since, model=False))
    assert ranked[0] is first


@pytest.mark.parametrize(("policy", "first"), [("greedy", EARLY), ("fair", FRUGAL), ("load_aware", EARLY)])
def test_who_gets_a_slot_when_the_early_one_would_build_and_the_other_select(
    policy: str, first: Contender
) -> None:
    order = POLICIES[policy]
    ranked = sorted((EARLY, FRUGAL), key=lambda job: order.compute_rank(job, feeds=job is EARLY))
    assert ranked[0] is first


def test_load_aware_feeds_the_hungriest_devices_first() -> None:
    load_aware = POLICIES["load_aware"]
    assert load_aware.group_rank(0.5) < load_aware.group_rank(4.0) < load_aware.group_rank(60.0)
    assert load_aware.group_rank(4.0) == load_aware.group_rank(5.0)


@pytest.mark.parametrize("policy", ["sequential", "greedy", "fair"])
def test_only_load_aware_lets_one_jobs_rounds_overlap(policy: str) -> None:
    ahead = Ahead(rounds=1, learning=0, models=0, work_s=0.0, lead_s=10.0, most=2)
    assert not POLICIES[policy].may_select(ahead)
    assert not POLICIES[policy].may_speculate(ahead)
    assert POLICIES["load_aware"].may_select(ahead)
    assert POLICIES["load_aware"].may_speculate(ahead)


@pytest.mark.parametrize("policy", list(POLICIES))
def test_only_load_aware_selects_while_the_cost_model_learns(policy: str) -> None:
    ahead = Ahead(rounds=0, learning=1, models=0, work_s=0.0, lead_s=10.0, most=2)
    assert POLICIES[policy].may_select(ahead) is (policy == "load_aware")


def test_load_aware_speculates_only_against_starving_and_within_bounds() -> None:
    load_aware = POLICIES["load_aware"]
    starving = Ahead(rounds=1, learning=0, models=0, work_s=0.0, lead_s=10.0, most=2)
    assert load_aware.may_speculate(starving)
    assert not load_aware.may_speculate(replace(starving, work_s=60.0))
    assert not load_aware.may_speculate(replace(starving, rounds=2))


def task(index: int, *, weight: int, best: float | None, **changes: float) -> Task:
    found = TaskFound(TaskId(f"job/t{index}"), f"op{index}", "w", weight, 1.0)
    one = Task(found, index, best, rounds=1)
    for name, value in changes.items():
        setattr(one, name, value)
    return one


def test_trials_go_where_weight_and_recent_improvement_promise_most() -> None:
    knobs = Knobs()
    slow, heavy = task(0, weight=1, best=4e-3), task(1, weight=8, best=4e-3)
    for one in (slow, heavy):
        one.learn(5e-3, 16, knobs)
    assert most_promising([slow, heavy], knobs, speculate=True) is heavy
    heavy.under_way = 1
    assert most_promising([slow, heavy], knobs, speculate=False) is slow


def test_a_stalled_task_gives_way_until_it_gains_again() -> None:
    knobs = Knobs()
    heavy, light = task(0, weight=4, best=1e-3, trials=200), task(1, weight=1, best=1e-3, trials=200)
    for _ in range(knobs.stalled_rounds):
        heavy.learn(1e-3, 16, knobs)
        light.learn(1.1e-3, 16, knobs)
    assert heavy.state(knobs) == "stalled"
    assert most_promising([heavy, light], knobs, speculate=True) is light
    heavy.best = 0.8e-3
    heavy.learn(1e-3, 16, knobs)
    assert heavy.state(knobs) == "searching"
    assert most_promising([heavy, light], knobs, speculate=True) is heavy


def test_of_two_stalled_tasks_the_one_far_from_what_the_hardware_does_is_tried_again() -> None:
    knobs = Knobs()
    near, far, other = (task(n, weight=1, best=1e-3, trials=100, progress=0.0) for n in range(3))
    for one, flops in ((near, 1e9), (far, 1e8), (other, 1e9)):
        one.found = replace(one.found, flops=flops)
    assert most_promising([near, far, other], knobs, speculate=True) is far
    far.trials = 2000
    assert most_promising([near, far, other], knobs, speculate=True) is near


def test_a_task_without_a_kernel_that_works_is_given_up_in_favour_of_others() -> None:
    knobs = Knobs()
    broken, slow = task(0, weight=9, best=None), task(1, weight=1, best=1e-3, progress=1e-6)
    assert most_promising([broken, slow], knobs, speculate=True) is broken
    for _ in range(knobs.stalled_rounds):
        broken.learn(None, 16, knobs)
    assert most_promising([broken, slow], knobs, speculate=True) is slow


def test_a_ranked_queue_forgets_moves_and_corrects() -> None:
    ranks = {"a": 1, "b": 2, "c": 3}
    queue: Ranked[str] = Ranked()
    for name, rank in ranks.items():
        queue.put(name, (rank,), name)
    ranks["a"] = 9
    assert queue.best(lambda name: (ranks[name],)) == ((2,), "b")
    queue.remove("b")
    queue.put("c", (0,), "c")
    assert queue.best() == ((0,), "c")
    assert len(queue) == 2
    for number in range(1000):
        queue.put("a", (number + 10,), "a")
    assert len(queue._heap) < 100
