"""What is read from repeated timings."""

from __future__ import annotations

from collections.abc import Sequence


def median(latencies: Sequence[float]) -> float:
    """Return the middle of repeated timings (s), which one disturbed repeat does not move."""
    ordered = sorted(latencies)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
