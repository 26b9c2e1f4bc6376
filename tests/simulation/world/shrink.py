"""Why a world failed, in as few faults as will do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simulation.world.faults import Fault
from simulation.world.fleet import Outcome, run

MOST_LINES = 60


def shrink(
    failed: Outcome,
    again: Callable[[int, Sequence[Fault]], Outcome] = run,
    tell: Callable[[str], None] = print,
) -> Outcome:
    """Leave out one fault after the other while the world still fails; return the shortest story."""
    best, tried_all = failed, False
    while not tried_all:
        tried_all = True
        for fault in reversed(best.plan):
            fewer = tuple(one for one in best.plan if one is not fault)
            outcome = again(best.seed, fewer)
            if outcome.violations:
                tell(f"  still fails with {len(fewer)} faults")
                best, tried_all = outcome, False
                break
    return best


def story(outcome: Outcome) -> str:
    """Tell a world that failed to people."""
    lines = [f"seed {outcome.seed} fails after {outcome.lasted_s:.1f} virtual seconds, with these faults:"]
    lines += [f"  {fault}" for fault in outcome.plan] or ["  none"]
    told = outcome.story[-MOST_LINES:]
    lines.append(f"its story{', the end of it' if len(told) < len(outcome.story) else ''}:")
    lines += [f"  {line}" for line in told]
    return "\n".join(lines)
