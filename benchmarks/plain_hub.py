"""A hub that spends alike on everything: no filter of poor candidates, no task or job pre-empted.

`python plain_hub.py HUB_OPTIONS`; all else is what `resonator hub` runs. Tasks have their rounds in turn
until the trials are used, and what the search proposes is built and measured as it comes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from resonator.cli.main import main
from resonator_hub import rules
from resonator_hub.scheduler import tuning
from resonator_hub.scheduler.knobs import Knobs
from resonator_hub.scheduler.task import Task
from resonator_hub.search import proposal, stage


def in_turn(tasks: Sequence[Task], _knobs: Knobs, *, speculate: bool) -> Task | None:
    """Return the task with the fewest rounds."""
    able = [task for task in tasks if not task.exhausted and (speculate or not task.under_way)]
    return min(able, key=lambda task: (task.rounds, task.index), default=None)


def select(*arguments: Any, **options: Any) -> tuple[proposal.Proposal, ...]:
    """Return as many candidates as are wanted, poor or not; this runs in a worker of the hub."""
    proposal.POOR, proposal.WIDTH = -math.inf, 1
    return proposal.select(*arguments, **options)


if __name__ == "__main__":
    import plain_hub  # workers know these functions by this module's name, not as the main program's

    tuning.most_promising = plain_hub.in_turn
    rules.Knobs = partial(Knobs, quiet_rounds=sys.maxsize)
    stage.select = plain_hub.select
    sys.argv[1:1] = ["hub"]
    main()
