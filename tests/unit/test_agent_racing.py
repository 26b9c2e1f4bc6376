"""How much time a kernel is given, on a clock that only its runs move."""

from __future__ import annotations

import pytest

from resonator_agent.racing import Protocol, Verdict, fit, race

FULL = Protocol(number=3, repeat=3, min_repeat_ms=100, cooldown_ms=0, timeout_s=10.0)


class Kernel:
    """Takes `cold` seconds at first and `warm` ones after; remembers how it was timed."""

    def __init__(self, cold: float, warm: float):
        self.times = [cold]
        self.warm = warm
        self.now = 0.0
        self.runs = 0
        self.protocol: Protocol | None = None

    def run(self) -> float:
        took = self.times.pop() if self.times else self.warm
        self.runs += 1
        self.now += took
        return took

    def full(self, protocol: Protocol) -> tuple[float, ...]:
        self.protocol = protocol
        self.now += protocol.cost_s(self.warm)
        return (self.warm,) * protocol.repeat

    def race(self, race_s: float | None, protocol: Protocol = FULL) -> Verdict:
        return race(self.run, self.full, protocol, race_s, lambda: self.now)


def test_a_fast_kernel_gets_the_full_protocol() -> None:
    kernel = Kernel(cold=2e-3, warm=1e-3)

    assert kernel.race(race_s=1.5e-3) == Verdict((1e-3,) * 3)
    assert kernel.protocol == FULL


def test_a_slow_kernel_is_known_after_two_short_runs() -> None:
    kernel = Kernel(cold=2.1e-3, warm=2e-3)

    assert kernel.race(race_s=1e-3) == Verdict((2e-3,), raced=True)
    assert kernel.runs == 2
    assert kernel.protocol is None


def test_a_hopeless_kernel_is_known_after_one() -> None:
    kernel = Kernel(cold=4e-3, warm=4e-3)

    assert kernel.race(race_s=1e-3).raced
    assert kernel.runs == 1


def test_a_kernel_that_was_only_cold_is_not_held_for_slow() -> None:
    assert not Kernel(cold=2.9e-3, warm=0.9e-3).race(race_s=1e-3).raced


@pytest.mark.parametrize("warm", [0.2, 0.9, 1.7, 2.9, 4.0])
def test_a_slow_model_is_measured_within_its_time_limit(warm: float) -> None:
    kernel = Kernel(cold=warm * 1.1, warm=warm)

    verdict = kernel.race(race_s=None)

    assert verdict.latencies
    assert kernel.now < FULL.timeout_s


def test_repeats_are_shortened_before_they_are_dropped() -> None:
    shorter = fit(FULL, run_s=0.1, left_s=1.0)

    assert shorter is not None
    assert (shorter.number, shorter.repeat) == (1, 3)
    assert fit(FULL, run_s=1.0, left_s=0.5) is None


def test_a_protocol_that_fits_is_left_alone() -> None:
    assert fit(FULL, run_s=1e-3, left_s=5.0) is FULL
