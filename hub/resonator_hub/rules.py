"""By which rules a scheduler decides: a journal folds only under those it was written by."""

from __future__ import annotations

from dataclasses import dataclass

from resonator_hub.journal import Journal
from resonator_hub.scheduler import Knobs, Scheduler
from resonator_hub.scheduler.events import HubStarted


@dataclass(frozen=True)
class Rules:
    """The policy, how many candidates a round has at most, and how long a window lasts."""

    policy: str
    batch: int
    window_s: float

    def scheduler(self, *, stories: Knobs | None = None) -> Scheduler:
        """Make a scheduler that goes by these rules; `stories` says how much it remembers of its past."""
        told = stories or Knobs()
        knobs = Knobs(
            batch=self.batch, window_s=self.window_s, stories=told.stories, story_lines=told.story_lines
        )
        return Scheduler(self.policy, knobs)


def began(journal: Journal) -> Rules | None:
    """Return the rules that a journal was begun with; None for an empty one."""
    first = next(journal.events(), None)
    if not isinstance(first, HubStarted):
        return None
    return Rules(first.policy, first.batch, first.window_s)
