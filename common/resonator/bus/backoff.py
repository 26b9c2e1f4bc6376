"""How long to wait before the next attempt to connect."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Exponential back-off with jitter, so that a fleet does not come back in one instant.

    `first_s` and `most_s` bound the wait in seconds; each one is drawn from the upper half of its step.
    """

    first_s: float = 0.5
    most_s: float = 30.0
    random: random.Random = field(default_factory=random.Random)
    _failures: int = 0

    def next(self) -> float:
        """Return the seconds to wait now, and double the step."""
        step = min(self.most_s, self.first_s * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return step * self.random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Start again at the first step: a connection was made."""
        self._failures = 0
