"""What the search is told of the past."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tried:
    """A measured candidate: its trace and its latency in seconds."""

    trace: bytes
    latency_s: float
