"""A link between two hosts: it takes time, it may be cut, and what goes over it keeps its order."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Protocol

from simulation.world.process import WORLD

_APART_S = 1e-6
"""Two things never arrive at one moment: a heap would not keep their order."""


PATIENCE = 1.5
"""A broker gives a client up after so many of its keepalives without a word."""


class End(Protocol):
    """A connection over a wire."""

    keepalive_s: int

    def silent_for_broker(self) -> None:
        """The broker has heard nothing for too long."""

    def silent_for_client(self) -> None:
        """The client has heard nothing for too long."""


@dataclass
class Mischief:
    """What a broker does to messages that it routes onto a wire: shares between 0 and 1, seconds."""

    lost: float = 0.0
    repeated: float = 0.0
    late: float = 0.0
    most_s: float = 30.0


class Wire:
    """Carries packets between two hosts in `latency_s` seconds, more or less, unless it is cut."""

    def __init__(self, name: str, latency_s: float, chance: random.Random) -> None:
        self.name = name
        self.latency_s = latency_s
        self.chance = chance
        self.cuts = 0
        self._times = 0
        self.slow = 1.0
        self.mischief = Mischief()
        self.lanes: list[Lane] = []
        self.ends: list[End] = []

    @property
    def is_cut(self) -> bool:
        """Whether nothing gets through."""
        return self.cuts > 0

    def cut(self) -> None:
        """Stop carrying; what was under way arrives. After some time both ends hold each other for gone."""
        self.cuts += 1
        if self.cuts == 1:
            self._times += 1
            loop = asyncio.get_running_loop()
            for end in self.ends:
                after_s = end.keepalive_s * self.chance.uniform(1.0, 2.0)
                loop.call_later(PATIENCE * end.keepalive_s, self._silence, self._times, end.silent_for_broker)
                loop.call_later(after_s, self._silence, self._times, end.silent_for_client)

    def _silence(self, times: int, tell: Callable[[], None]) -> None:
        if self.is_cut and self._times == times:
            tell()

    def mend(self) -> None:
        """Carry again, and what was held up first."""
        self.cuts -= 1
        if not self.is_cut:
            for lane in list(self.lanes):
                lane.flush()

    def delay_s(self) -> float:
        """Return how long the next packet takes."""
        return self.latency_s * self.slow * self.chance.uniform(0.5, 1.5)


class Lane:
    """One direction of one connection over a wire; nothing arrives after `close`."""

    def __init__(self, wire: Wire, context: Context = WORLD) -> None:
        self._wire = wire
        self._context = context
        self._last = 0.0
        self._held: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._open = True
        wire.lanes.append(self)

    def send(self, arrive: Callable[..., Any], *arguments: Any) -> None:
        """Have `arrive` called at the other end."""
        if not self._open:
            return
        if self._wire.is_cut:
            self._held.append((arrive, arguments))
            return
        loop = asyncio.get_running_loop()
        self._last = max(self._last + _APART_S, loop.time() + self._wire.delay_s())
        loop.call_at(self._last, self._arrive, arrive, arguments, context=self._context)

    def flush(self) -> None:
        """Send what was held up while the wire was cut."""
        held, self._held = self._held, deque()
        for arrive, arguments in held:
            self.send(arrive, *arguments)

    def close(self) -> None:
        """Nothing arrives any more."""
        if self._open:
            self._open = False
            self._wire.lanes.remove(self)

    def _arrive(self, arrive: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        if self._open:
            arrive(*arguments)
