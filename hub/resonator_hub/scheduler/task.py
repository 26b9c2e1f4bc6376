"""One operator of a job's model: how far its search has come and what a further trial promises."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from resonator.ids import TaskId
from resonator_hub.scheduler.events import TaskFound
from resonator_hub.scheduler.knobs import Knobs

_FIRST_PROGRESS = 0.2
"""The share of its latency that a task is expected to lose in the round after its first."""

_LUCK = 0.1
"""What chance alone may bring a task, as a share of its latency: this much in as many trials as it had."""

_ROOF = 2.0
"""No operator is expected to compute this much faster than the fastest one of its job does."""


@dataclass(slots=True, eq=False)
class Task:
    """`best` is the best latency so far (s); `progress` the share of it that a trial has gained of late.

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
    progress: float | None = None
    exhausted: bool = False

    @property
    def id(self) -> TaskId:
        """The task's id."""
        return self.found.task

    @property
    def work(self) -> float:
        """The floating-point operations that it contributes to a run of the model."""
        return self.found.weight * self.found.flops

    @property
    def seconds(self) -> float:
        """What the task contributes to the model's latency as far as is known."""
        return self.found.weight * self.best if self.best is not None else 0.0

    def state(self, knobs: Knobs) -> Literal["searching", "stalled", "exhausted"]:
        """Return the public state."""
        if self.exhausted:
            return "exhausted"
        return "stalled" if self.stale >= knobs.stalled_rounds else "searching"

    def learn(self, before: float | None, trials: int, knobs: Knobs) -> None:
        """Take in a finished round of `trials`, begun when the best latency was `before`.

        Half of the expected progress is what this round made: what is long past soon counts for nothing.
        """
        if self.best is None:
            self.stale += 1
        elif before is None:
            self.stale = 0
            self.progress = _FIRST_PROGRESS / max(1, trials)
        else:
            gained = max(0.0, 1.0 - self.best / before)
            self.stale = 0 if gained > knobs.least_gain else self.stale + 1
            recent = gained / max(1, trials)
            self.progress = recent if self.progress is None else (self.progress + recent) / 2

    def promise(self, fastest: float, knobs: Knobs) -> float:
        """Return the weighted seconds that one more trial should gain, `fastest` being the job's best flop/s.

        A task gains as it did of late, or by luck: a record among independent draws becomes rarer as one
        over their number, and the further a task is from what the hardware does, the more luck may bring.
        So a task that has stalled gives way at once and is still tried again, ever more rarely.
        """
        if self.best is None:
            return 0.0 if self.stale >= knobs.stalled_rounds else inf
        if self.progress is None:
            return inf
        room = 1.0 - self.found.flops / (_ROOF * fastest * self.best) if fastest else 1.0
        luck = _LUCK * room / (self.trials + knobs.batch)
        return self.seconds * (self.progress + luck)


def most_promising(tasks: list[Task], knobs: Knobs, *, speculate: bool) -> Task | None:
    """Return the task that the next round should go to, or None when none can have one.

    Without `speculate` a task with a round under way is left alone until its results are in.

    First each task once, the heaviest first; then by what a trial promises, shared among the rounds that a
    task has under way already.
    """
    able = [task for task in tasks if not task.exhausted and (speculate or not task.under_way)]
    fresh = [task for task in able if not task.rounds]
    if fresh:
        return min(fresh, key=lambda task: (-task.work, task.index))
    fastest = max((task.found.flops / task.best for task in tasks if task.best), default=0.0)
    return min(
        able,
        key=lambda task: (
            -task.promise(fastest, knobs) / (1 + task.under_way),
            task.under_way,
            task.index,
        ),
        default=None,
    )
