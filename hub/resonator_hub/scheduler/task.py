"""One operator of a job's model: how far its search has come and what a further trial promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from resonator.ids import TaskId
from resonator_hub.scheduler.events import TaskFound
from resonator_hub.scheduler.knobs import Knobs

_FIRST_PROMISE = 0.2
"""The share of its latency that a task is expected to lose in the round after its first."""


@dataclass(slots=True, eq=False)
class Task:
    """`best` is the best latency so far (s); `gain` the weighted seconds that one more trial is worth.

    `trials` were selected, `under_way` rounds are not complete, `stale` rounds in a row gained too little.
    """

    found: TaskFound
    index: int
    best: float | None
    trials: int = 0
    failed: int = 0
    rounds: int = 0
    next_candidate: int = 0
    under_way: int = 0
    stale: int = 0
    gain: float = float("inf")
    exhausted: bool = False

    @property
    def id(self) -> TaskId:
        """The task's id."""
        return self.found.task

    def state(self, knobs: Knobs) -> Literal["searching", "stalled", "exhausted"]:
        """Return the public state."""
        if self.exhausted:
            return "exhausted"
        return "stalled" if self.stale >= knobs.stalled_rounds else "searching"

    def hopeful(self, knobs: Knobs) -> bool:
        """Return whether a further trial may make sense at all."""
        return not self.exhausted and self.stale < knobs.hopeless_rounds

    def learn(self, before: float | None, trials: int, knobs: Knobs) -> None:
        """Take in a finished round of `trials`, begun when the best latency was `before`."""
        if self.best is None:
            self.stale += 1
            self.gain = 0.0 if self.stale >= knobs.stalled_rounds else self.gain
            return
        if before is None:
            self.stale = 0
            self.gain = self.found.weight * self.best * _FIRST_PROMISE / max(1, trials)
            return
        improvement = max(0.0, before - self.best)
        self.stale = 0 if improvement > knobs.least_gain * before else self.stale + 1
        recent = self.found.weight * improvement / max(1, trials)
        self.gain = recent if self.gain == float("inf") else (self.gain + recent) / 2


def most_promising(tasks: list[Task], knobs: Knobs, *, speculate: bool) -> Task | None:
    """Return the task that the next round should go to, or None when none is worth a trial.

    Without `speculate` a task with a round under way is left alone until its results are in.

    First each task once, the heaviest first; then by expected gain, shared among the rounds that a task has
    under way already; tasks that have stalled only when no other is left.
    """
    hopeful = [task for task in tasks if task.hopeful(knobs) and (speculate or not task.under_way)]
    fresh = [task for task in hopeful if not task.rounds]
    if fresh:
        return min(fresh, key=lambda task: (-task.found.weight * task.found.flops, task.index))
    return min(
        hopeful,
        key=lambda task: (
            task.stale >= knobs.stalled_rounds,
            -task.gain / (1 + task.under_way),
            task.under_way,
            task.index,
        ),
        default=None,
    )
