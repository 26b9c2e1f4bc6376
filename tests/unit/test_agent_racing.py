"""How much time a kernel is given, on a clock that only its runs move."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resonator_agent.racing import (
    DOUBT,
    MOST_RUNS,
    PRECISION,
    Kernel,
    Plan,
    Protocol,
    Run,
    Verdict,
    chance,
    interval,
    race,
)

FULL = Protocol(number=3, repeat=3, min_repeat_ms=100, cooldown_ms=0, timeout_s=10.0)
MS = 1e-3


class Timed:
    """Takes `cold` seconds at first and `warm` ones after, times what `noise` says; counts its runs.

    With a chance of `preempted`, something else has the core for 4 ms of a run.
    """

    def __init__(
        self, cold: float, warm: float, *, noise: float = 0.0, preempted: float = 0.0, seed: int = 0
    ):
        self.now = 0.0
        self.runs = 0
        self.calls: list[tuple[int, int]] = []
        self._cold = cold
        self._warm = warm
        self._noise = noise
        self._preempted = preempted
        self._random = random.Random(seed)

    def run(self) -> Run:
        lost = 4 * MS if self._random.random() < self._preempted else 0.0
        usual = self._warm if self.runs else self._cold
        took = usual * self._random.lognormvariate(0.0, self._noise) + lost
        self.runs += 1
        self.now += took
        return Run(took, lost)

    def means(self, number: int, count: int) -> tuple[float, ...]:
        self.calls.append((number, count))
        self.run()
        return tuple(sum(self.run().took_s for _ in range(number)) / number for _ in range(count))

    def race(self, race_s: float | None, protocol: Protocol = FULL, *, thorough: bool = False) -> Verdict:
        return race(Kernel(self.run, self.means, lambda: self.now), protocol, race_s, thorough=thorough)


# --- the race ----------------------------------------------------------------------------------------------


def test_a_hopeless_kernel_costs_one_run() -> None:
    kernel = Timed(cold=5 * MS, warm=5 * MS)

    assert kernel.race(race_s=1 * MS) == Verdict((5 * MS,), raced=True)
    assert kernel.runs == 1


@pytest.mark.parametrize(("warm", "runs"), [(2.5, 1), (1.5, 2), (1.2, 3), (1.05, 5)])
def test_the_closer_to_the_limit_the_more_runs_it_takes(warm: float, runs: int) -> None:
    kernel = Timed(cold=1.1 * warm * 10 * MS, warm=warm * 10 * MS)

    verdict = kernel.race(race_s=10 * MS)

    assert verdict.raced
    assert kernel.runs == runs


def test_a_kernel_within_the_limit_gets_the_protocol() -> None:
    verdict = Timed(cold=2 * MS, warm=1 * MS).race(race_s=1.5 * MS)

    assert not verdict.raced
    assert median(verdict.latencies) == pytest.approx(1 * MS)


def test_a_kernel_that_was_only_cold_is_not_held_for_slow() -> None:
    assert not Timed(cold=1.8 * MS, warm=0.9 * MS).race(race_s=1 * MS).raced


def test_a_tiny_kernel_is_not_judged_by_what_its_first_run_has_to_load() -> None:
    assert not Timed(cold=0.5 * MS, warm=0.01 * MS).race(race_s=0.012 * MS).raced


def test_without_a_limit_nothing_is_raced() -> None:
    assert not Timed(cold=100 * MS, warm=100 * MS).race(race_s=None).raced


@given(
    runs=st.lists(st.tuples(st.floats(1e-6, 1.0), st.floats(0.0, 1.0)), min_size=MOST_RUNS),
    limit=st.floats(1e-6, 1.0),
)
def test_only_what_was_too_slow_in_each_run_is_raced(runs: list[tuple[float, float]], limit: float) -> None:
    left = [Run(took, lost * took) for took, lost in runs]
    made = []

    def run() -> Run:
        made.append(left.pop(0))
        return made[-1]

    verdict = race(Kernel(run, lambda number, count: (1.0,) * count, lambda: 0.0), FULL, limit)

    assert len(made) <= MOST_RUNS
    if verdict.raced:
        assert verdict.latencies == (min(one.took_s for one in made),)
        assert all(one.took_s > limit for one in made)


def test_a_run_that_others_may_have_slowed_down_says_nothing() -> None:
    kernel = Timed(cold=1 * MS, warm=1 * MS, preempted=0.1)

    assert not any(kernel.race(race_s=1.1 * MS).raced for _ in range(200))


@pytest.mark.parametrize("seed", range(5))
def test_a_winner_among_the_noise_is_hardly_ever_raced(seed: int) -> None:
    kernel = Timed(1 * MS, 1 * MS, noise=0.2, preempted=0.02, seed=seed)

    assert sum(kernel.race(race_s=1.5 * MS).raced for _ in range(300)) <= 2


@pytest.mark.parametrize("seed", range(5))
def test_slow_kernels_cost_little_more_than_a_run_on_average(seed: int) -> None:
    slow = [Timed(5 * MS, 5 * MS, noise=0.1, preempted=0.02, seed=100 * seed + n) for n in range(100)]

    assert all(kernel.race(race_s=1 * MS).raced for kernel in slow)
    assert sum(kernel.runs for kernel in slow) <= 130


def test_the_chance_of_a_long_run_falls_with_its_length() -> None:
    assert chance(1.0, 1.0) == 1.0
    assert chance(1.001, 1.0) == pytest.approx(0.5, rel=0.01)
    assert chance(2.0, 1.0) == pytest.approx(1 / 16)


# --- the protocol's end ------------------------------------------------------------------------------------


def test_a_quiet_kernel_is_known_after_a_fraction_of_the_protocol() -> None:
    kernel = Timed(cold=1 * MS, warm=1 * MS)

    assert kernel.race(race_s=None).latencies == pytest.approx((1 * MS,) * 6)
    assert kernel.now < 0.04


@pytest.mark.parametrize("seed", range(5))
def test_an_unquiet_kernel_is_given_the_whole_protocol(seed: int) -> None:
    kernel = Timed(1 * MS, 1 * MS, noise=0.5, seed=seed)

    assert len(kernel.race(race_s=None).latencies) > 20
    assert 0.05 < kernel.now < 1.0


@pytest.mark.parametrize(("noise", "preempted"), [(0.02, 0.0), (0.02, 0.01), (0.04, 0.0)])
def test_an_early_stop_is_right_about_the_median(noise: float, preempted: float) -> None:
    kernels = [Timed(1 * MS, 1 * MS, noise=noise, preempted=preempted, seed=seed) for seed in range(100)]
    once = replace(FULL, repeat=1)

    found = [median(kernel.race(race_s=None, protocol=once).latencies) for kernel in kernels]

    wrong = sum(abs(one / MS / math.exp(noise**2 / 2) - 1.0) > 2 * PRECISION for one in found)
    assert wrong <= 100 * DOUBT


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=60))
def test_the_interval_holds_the_median_of_its_values(values: list[float]) -> None:
    bounds = interval(values)

    assert (bounds is None) is (len(values) < 6)
    if bounds is not None:
        assert min(values) <= bounds[0] <= median(values) <= bounds[1] <= max(values)


def test_the_interval_misses_the_true_median_as_rarely_as_it_says() -> None:
    source = random.Random(1)
    missed = 0
    for _ in range(2000):
        bounds = interval([source.paretovariate(2.0) for _ in range(20)])
        assert bounds is not None
        missed += not bounds[0] <= 2.0**0.5 <= bounds[1]
    assert missed <= 2000 * DOUBT


def test_a_thorough_measurement_spends_the_whole_protocol() -> None:
    kernel = Timed(cold=1 * MS, warm=1 * MS)

    assert kernel.race(race_s=None, thorough=True).latencies == pytest.approx((1 * MS,) * 3)
    assert kernel.calls == [(100, 3)]


# --- plans -------------------------------------------------------------------------------------------------


def test_the_number_of_runs_is_known_before_they_are_made() -> None:
    assert FULL.plan(run_s=1 * MS, left_s=5.0) == Plan(number=100, means=3)
    assert FULL.plan(run_s=0.1, left_s=5.0) == Plan(number=3, means=3)


def test_repeats_are_shortened_before_they_are_dropped() -> None:
    assert FULL.plan(run_s=0.1, left_s=1.1) == Plan(number=3, means=3)
    assert FULL.plan(run_s=0.1, left_s=0.8) == Plan(number=2, means=3)
    assert FULL.plan(run_s=0.1, left_s=0.35) == Plan(number=1, means=2)
    assert FULL.plan(run_s=1.0, left_s=0.5) is None


@pytest.mark.parametrize(
    ("plan", "run_s", "parts"),
    [
        (Plan(100, 3), 1 * MS, Plan(5, 60)),
        (Plan(24, 1), 4 * MS, Plan(2, 12)),
        (Plan(3, 1), 50 * MS, Plan(1, 3)),
        (Plan(3, 1), 1e-6, Plan(3, 1)),
        (Plan(10_000, 1), 2**-20, Plan(1049, 10)),
        (Plan(100, 100), 1 * MS, Plan(10, 1000)),
    ],
)
def test_repeats_are_divided(plan: Plan, run_s: float, parts: Plan) -> None:
    assert FULL.divide(plan, run_s) == parts


def test_a_cooldown_follows_each_repeat_and_nothing_less() -> None:
    rested = replace(FULL, cooldown_ms=50)

    plan = rested.plan(1 * MS, 5.0)

    assert plan == Plan(100, 3)
    assert rested.divide(plan, 1 * MS) == plan


@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.parametrize("warm", [0.2, 0.9, 1.7, 2.9, 4.0])
def test_a_slow_model_is_measured_within_its_time_limit(warm: float, thorough: bool) -> None:
    kernel = Timed(cold=warm * 1.1, warm=warm)

    verdict = kernel.race(race_s=None, thorough=thorough)

    assert verdict.latencies
    assert kernel.now < FULL.timeout_s
