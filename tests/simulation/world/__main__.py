"""`make simulate`: many worlds, one after the other; the first that fails is told as short as it can be."""

from __future__ import annotations

import sys
from simulation.world.fleet import run

if __name__ == "__main__":
    outcome = run(int(sys.argv[1]))
    print("\n".join(outcome.story))
    print(outcome.violations, outcome.digest, outcome.lasted_s, outcome.messages, outcome.steps, outcome.runs)
