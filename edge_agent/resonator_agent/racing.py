"""How much of a device's time a kernel deserves: short runs first, then the full protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

HOPELESS = 3.0
"""A first, cold run this many times slower than the limit needs no second look."""
MARGIN = 0.9
"""The share of the time limit that is planned with."""


@dataclass(frozen=True)
class Protocol:
    """How a kernel is timed, by TVM's names; times in seconds but for those that say ms."""

    number: int
    repeat: int
    min_repeat_ms: int
    cooldown_ms: int
    timeout_s: float

    def cost_s(self, run_s: float) -> float:
        """Estimate what this takes for a kernel of `run_s`, TVM's search for `number` included."""
        once = max(self.number * run_s, self.min_repeat_ms / 1000.0)
        return run_s + (self.repeat + 1) * once + self.repeat * self.cooldown_ms / 1000.0


@dataclass(frozen=True)
class Verdict:
    """What the measurements of one kernel were; `raced` says that short runs sufficed."""

    latencies: tuple[float, ...]
    raced: bool = False


def fit(protocol: Protocol, run_s: float, left_s: float) -> Protocol | None:
    """Reduce a protocol to fit into `left_s` seconds: shorter repeats, then fewer; None: nothing fits."""
    while protocol.cost_s(run_s) > left_s:
        if protocol.number > 1 or protocol.min_repeat_ms > 0:
            protocol = replace(
                protocol, number=max(1, protocol.number // 2), min_repeat_ms=protocol.min_repeat_ms // 2
            )
        elif protocol.repeat > 1:
            protocol = replace(protocol, repeat=protocol.repeat - 1)
        else:
            return None
    return protocol


def race(
    run: Callable[[], float],
    full: Callable[[Protocol], tuple[float, ...]],
    protocol: Protocol,
    race_s: float | None,
    clock: Callable[[], float],
) -> Verdict:
    """Time a kernel: `run` returns the seconds of one run, `full` spends a whole protocol on it.

    A kernel whose short runs are all slower than `race_s` is reported after them, with the faster one.
    """
    start = clock()
    budget = protocol.timeout_s * MARGIN
    cold = run()
    if race_s is not None and cold > HOPELESS * race_s:
        return Verdict((cold,), raced=True)
    if clock() - start + cold > budget:
        return Verdict((cold,))
    best = min(cold, run())
    if race_s is not None and best > race_s:
        return Verdict((best,), raced=True)
    fitting = fit(protocol, best, budget - (clock() - start))
    return Verdict((best,)) if fitting is None else Verdict(full(fitting))
