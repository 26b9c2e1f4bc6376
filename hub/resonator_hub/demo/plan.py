"""What the demo does with this machine: which core is whose, and which model is tuned."""

from __future__ import annotations

import importlib.resources
import os
from dataclasses import dataclass
from pathlib import Path

MODEL = "backend/test/data/light/light_squeezenet.onnx"
"""A real graph that comes with the `onnx` package: 224 x 224 images, 26 convolutions."""
TRIALS = 256
"""Enough for a wide margin over the untuned model, and under six minutes on two cores."""
TWO_AGENTS_FROM = 4
"""With this many cores there are two agents, else one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Cores by their number: those of the hub, and one for each agent."""

    hub: tuple[int, ...]
    agents: tuple[int, ...]

    def agent_name(self, index: int) -> str:
        """Name the `index`-th agent by its core."""
        return f"core{self.agents[index]}"


def plan(cores: set[int]) -> Plan:
    """Give agents the last cores, since interrupts favour the first; one core alone is shared."""
    usable = sorted(cores)
    count = 2 if len(usable) >= TWO_AGENTS_FROM else 1
    agents = tuple(usable[-count:])
    return Plan(tuple(usable[:-count]) or agents, agents)


def usable_cores() -> set[int]:
    """Return the cores that this process may use."""
    return os.sched_getaffinity(0)


def default_model() -> Path:
    """Return the path of the model that comes with the `onnx` package."""
    return Path(str(importlib.resources.files("onnx") / MODEL))
