"""How long steps take: running means of what was observed, in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

_MEMORY = 64
"""Observations after which a mean begins to forget, so that it follows a load that changes."""

_FIRST_GUESS = {
    "extract": 10.0,
    "select": 10.0,
    "build": 0.5,
    "update": 1.0,
    "compile": 20.0,
    "deliver": 1.0,
    "profile": 0.5,
}


@dataclass(slots=True)
class RunningMean:
    """A mean that starts from a guess, which the first observation replaces."""

    value: float
    count: int = 0

    def observe(self, seconds: float) -> None:
        """Take one more observation into the mean."""
        self.count = min(self.count + 1, _MEMORY)
        self.value += (seconds - self.value) / self.count


@dataclass(slots=True)
class Estimates:
    """How long each kind of step should take, and one kernel's measurement on each kind of hardware."""

    _means: dict[str, RunningMean] = field(default_factory=dict)

    def of(self, kind: str, hardware: str = "") -> float:
        """Return the expected seconds of a step of this kind."""
        mean = self._means.get(f"{kind} {hardware}")
        return mean.value if mean else _FIRST_GUESS[kind]

    def knows(self, kind: str, hardware: str = "") -> bool:
        """Return whether a step of this kind was ever observed: otherwise its time is a guess."""
        return f"{kind} {hardware}" in self._means

    def observe(self, kind: str, seconds: float, hardware: str = "") -> None:
        """Learn that a step of this kind took so long; durations of zero say nothing and are left out."""
        if seconds <= 0:
            return
        key = f"{kind} {hardware}"
        if key not in self._means:
            self._means[key] = RunningMean(seconds)
        self._means[key].observe(seconds)
