"""How much of a device's time a kernel deserves: single runs first, the protocol as far as it tells more.

Two stops, both statistical. A race ends as soon as a kernel whose median is within the limit would hardly
have taken so long in every run so far. The protocol ends as soon as the median is known to `PRECISION`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

DOUBT = 0.05
"""The chance of being wrong with which a race is ended, and which an interval leaves."""
TAIL = 3.0
"""A run is `x` times the median or more with a chance of x ** -TAIL / 2, more often than on any fit box."""
COLD_S = 500e-6
"""What pages, symbols and caches may cost a first run, beside a share of its time."""
COLD_SHARE = 0.2
"""Of 32 convolutions of 1 to 100 ms, on a core that was not quiet, 28 took at most 17 % longer at first; two
of the others 40 to 50 %, which looks like 4 ms of another process. So this is chosen, not proven."""
CALL_S = 20e-6
"""What calling a kernel once may cost; the limit comes from means over many runs, where it is no matter."""
PRECISION = 0.01
"""Half the width of a confidence interval that is narrow enough, as a share of the median."""
PARTS = 20
"""Into how many means a repeat is divided, to stop between them and to tell disturbed ones from the rest."""
SHORTEST_MEAN_S = 1e-3
"""Shorter ones would tell of the clock, of interrupts and of the calls."""
FIRST_LOOK, NEXT_LOOK = 6, 3
"""After how many means the interval is looked at: fewer than six bound no median with this confidence."""
MOST_MEANS = 1000
"""As many as a result may report."""
MOST_RUNS = 8
"""After so many single runs a kernel is given the benefit of the doubt."""
MARGIN = 0.9
"""The share of the time limit that is planned with."""


@dataclass(frozen=True)
class Run:
    """One run, in seconds; other processes may have had the core for `lost_s` of them."""

    took_s: float
    lost_s: float = 0.0


@dataclass(frozen=True)
class Plan:
    """The means to take, over `number` runs each."""

    number: int
    means: int


@dataclass(frozen=True)
class Protocol:
    """How a kernel is timed at most, by TVM's names; times in seconds but for those that say ms."""

    number: int
    repeat: int
    min_repeat_ms: int
    cooldown_ms: int
    timeout_s: float

    def plan(self, run_s: float, left_s: float) -> Plan | None:
        """Return one mean a repeat, for a kernel of `run_s`, within `left_s`; None where nothing fits.

        Where time is short, repeats are shortened before they are dropped.
        """
        cooldown_s = self.cooldown_ms / 1000.0
        run_s = max(run_s, 1e-7)
        left_s -= run_s  # TVM's evaluator warms up
        repeat = min(self.repeat, int(left_s / (run_s + cooldown_s)))
        if repeat < 1:
            return None
        wanted = max(self.number, math.ceil(self.min_repeat_ms / 1000.0 / run_s))
        affordable = int((left_s / repeat - cooldown_s) / run_s)
        return Plan(max(1, min(wanted, affordable)), repeat)

    def divide(self, plan: Plan, run_s: float) -> Plan:
        """Return a plan of as many runs in shorter means; with a cooldown, which follows each, the same."""
        if self.cooldown_ms:
            return plan
        number = math.ceil(plan.number / min(PARTS, MOST_MEANS // plan.means))
        number = min(plan.number, max(number, math.ceil(SHORTEST_MEAN_S / run_s)))
        return Plan(number, plan.means * math.ceil(plan.number / number))


@dataclass(frozen=True)
class Verdict:
    """What the measurements of one kernel were; `raced` says that single runs sufficed."""

    latencies: tuple[float, ...]
    raced: bool = False


@dataclass(frozen=True)
class Kernel:
    """What is timed: `run` once, `means(number, count)` for so many means over `number` runs, in seconds."""

    run: Callable[[], Run]
    means: Callable[[int, int], Sequence[float]]
    clock: Callable[[], float]


def race(kernel: Kernel, protocol: Protocol, race_s: float | None, *, thorough: bool = False) -> Verdict:
    """Time a kernel; one that is slower than `race_s` in all likelihood is reported with its fastest run.

    The others are reported with the means of the protocol, as many as it takes to know the median. With
    `thorough` the whole protocol is spent, and each repeat is one mean.
    """
    deadline = kernel.clock() + protocol.timeout_s * MARGIN
    limit_s = math.inf if race_s is None else race_s + CALL_S
    first = kernel.run()
    fastest_s = first.took_s
    doubt = chance((first.took_s - first.lost_s - COLD_S) * (1.0 - COLD_SHARE), limit_s)
    for _ in range(MOST_RUNS - 1):
        if doubt <= DOUBT or kernel.clock() + fastest_s > deadline:
            break
        latest = kernel.run()
        fastest_s = min(fastest_s, latest.took_s)
        if fastest_s <= limit_s:
            break
        doubt *= chance(latest.took_s - latest.lost_s, limit_s)
    if doubt <= DOUBT:
        return Verdict((fastest_s,), raced=True)
    plan = protocol.plan(fastest_s, deadline - kernel.clock())
    if plan is None:
        return Verdict((fastest_s,))
    if thorough:
        return Verdict(tuple(kernel.means(plan.number, plan.means)))
    return Verdict(_settle(kernel, protocol.divide(plan, fastest_s), deadline))


def chance(run_s: float, limit_s: float) -> float:
    """Return the chance, at most, of so long a run of a kernel whose median is within the limit."""
    return 1.0 if run_s <= limit_s else 0.5 * (limit_s / run_s) ** TAIL


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the bounds of the median, wrong with a chance of `DOUBT` at most; None for too few values.

    They are two of the values, whose ranks follow from the binomial distribution: nothing is assumed about
    the noise, and a few disturbed values do not move them.
    """
    count = len(values)
    below, rank = 0.0, -1
    while 2.0 * (below + math.comb(count, rank + 1) / 2**count) <= DOUBT:
        rank += 1
        below += math.comb(count, rank) / 2**count
    ordered = sorted(values)
    return None if rank < 0 else (ordered[rank], ordered[count - 1 - rank])


def _settle(kernel: Kernel, plan: Plan, deadline: float) -> tuple[float, ...]:
    """Take the means of a plan until their median is known."""
    found: list[float] = []
    look = FIRST_LOOK
    while len(found) < plan.means and not _settled(found):
        found += kernel.means(plan.number, min(look, plan.means - len(found)))
        look = NEXT_LOOK
        if kernel.clock() > deadline:
            break
    return tuple(found)


def _settled(means: Sequence[float]) -> bool:
    bounds = interval(means)
    return bounds is not None and bounds[1] - bounds[0] <= PRECISION * (bounds[0] + bounds[1])
