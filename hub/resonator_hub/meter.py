"""What the step being performed has cost in processor time, wherever in it compute was used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Meter:
    """Processor seconds of one step."""

    cpu_s: float = 0.0


_current: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered() -> Iterator[Meter]:
    """Add up what is charged within, in this task and in those it starts."""
    meter = Meter()
    token = _current.set(meter)
    try:
        yield meter
    finally:
        _current.reset(token)


def charge(cpu_s: float) -> None:
    """Add processor seconds to the step being performed; outside of steps nobody counts them."""
    if (meter := _current.get()) is not None:
        meter.cpu_s += cpu_s
