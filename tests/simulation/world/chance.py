"""Randomness by purpose: what is drawn for one thing does not change what is drawn for another."""

from __future__ import annotations

import random


def stream(seed: int, purpose: str) -> random.Random:
    """Return the random numbers that one purpose has in the world of a seed."""
    return random.Random(f"{seed}/{purpose}")
