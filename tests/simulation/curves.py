"""Synthetic searches: how an operator's best latency falls with its trials, and how trials are shared out."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import exp

from resonator.ids import TaskId
from resonator_hub.scheduler.events import TaskFound
from resonator_hub.scheduler.knobs import Knobs
from resonator_hub.scheduler.task import Task

KNOBS = Knobs()
Pick = Callable[[list[Task]], Task]
_WEIGHTS = (1, 1, 1, 2, 3, 4, 8)


class Search:
    """Candidates of one operator: ever better on average, with luck; of some the good ones are found late."""

    def __init__(self, seed: int) -> None:
        self._random = chance = random.Random(seed)
        self.floor_s = 10 ** chance.uniform(-4, -2)
        self.flops = 1e11 * self.floor_s * chance.uniform(0.3, 1.0)
        self._head = 10 ** chance.uniform(-0.3, 0.8)
        self._pace = 10 ** chance.uniform(0.9, 2.4)
        self._noise = chance.uniform(0.05, 0.5)
        self._step = chance.uniform(0.1, 0.4) if chance.random() < 0.3 else 0.0
        self._step_at = chance.uniform(50, 300)
        self._trials = 0

    def draw_s(self) -> float:
        """Return the next candidate's latency."""
        self._trials += 1
        share = self._head * exp(-self._trials / self._pace) + self._random.expovariate(1 / self._noise)
        return self.floor_s * (1.0 + share + (self._step if self._trials < self._step_at else 0.0))


class Model:
    """A model of ten operators; `curve` is its latency after each round, by the trials until then."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.searches = [Search(chance.randrange(2**32)) for _ in range(10)]
        self.tasks = [
            Task(TaskFound(TaskId(f"m/t{n}"), f"op{n}", "w", chance.choice(_WEIGHTS), one.flops), n, None)
            for n, one in enumerate(self.searches)
        ]
        self.curve: list[tuple[int, float]] = []

    def tune(self, budget: int, pick: Pick) -> Model:
        """Spend `budget` trials: first a round on each operator, then where `pick` says."""
        spent = 0
        while spent < budget:
            fresh = [task for task in self.tasks if not task.rounds]
            spent += self._round(fresh[0] if fresh else pick(self.tasks))
            if not fresh:
                self.curve.append((spent, sum(task.seconds for task in self.tasks)))
        return self

    def _round(self, task: Task) -> int:
        before, count = task.best, KNOBS.batch
        found = min(self.searches[task.index].draw_s() for _ in range(count))
        task.best = found if before is None else min(before, found)
        task.rounds += 1
        task.trials += count
        task.learn(before, count, KNOBS)
        return count

    def trials_to(self, latency_s: float) -> int:
        """Return after how many trials the model was as fast as that; all of them when it never was."""
        return next((trials for trials, found in self.curve if found <= latency_s), self.curve[-1][0])


class Plateau:
    """The rule to beat: the heaviest operator first, until `rounds` in a row gain less than `gain` each.

    When all of them have stopped, all may go on. (In turn instead of heaviest first it does worse.)
    """

    def __init__(self, rounds: int = 3, gain: float = 0.01) -> None:
        self._rounds, self._gain = rounds, gain
        self._flat: dict[int, int] = {}
        self._last: tuple[Task, float] | None = None

    def __call__(self, tasks: list[Task]) -> Task:
        """Return the task that the next round goes to."""
        if self._last is not None:
            task, before = self._last
            gained = 1.0 - (task.best or before) / before
            self._flat[task.index] = 0 if gained > self._gain else self._flat.get(task.index, 0) + 1
        going = [task for task in tasks if self._flat.get(task.index, 0) < self._rounds]
        if not going:
            self._flat.clear()
        chosen = min(going or tasks, key=lambda task: (-task.seconds, task.index))
        self._last = chosen, chosen.best or 0.0
        return chosen
