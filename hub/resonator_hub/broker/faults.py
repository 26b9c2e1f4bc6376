"""Faults on command: what a bad network and a tired broker do to messages, seeded and repeatable."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from resonator.errors import InputInvalid

Deliver = Callable[[], None]


@dataclass(frozen=True)
class Faults:
    """How forwarded messages are maltreated; retained ones, sent at a subscription, are only delayed.

    `lose` and `repeat` are probabilities, `delay_s` the least and the most seconds to wait. Order inside one
    topic is always kept; with `reorder` each topic of a subscriber waits on its own, else all wait together.
    The fate of the n-th message of a topic to a subscriber depends on `seed` and on nothing else. Raises
    InputInvalid for what is no probability or no interval.
    """

    lose: float = 0.0
    repeat: float = 0.0
    delay_s: tuple[float, float] = (0.0, 0.0)
    reorder: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("lose", self.lose), ("repeat", self.repeat)):
            if not 0.0 <= value <= 1.0:
                raise InputInvalid(f"faults: {name} is {value}; it is a probability from 0 to 1")
        least, most = self.delay_s
        if not 0.0 <= least <= most:
            raise InputInvalid(
                f"faults: delay_s is {self.delay_s}; it is (least, most) with 0 <= least <= most"
            )

    def fate(self, client_id: str, topic: str, number: int) -> list[float]:
        """Return the delay in seconds of each copy of one message: none when lost, two when repeated."""
        # A generator of its own for each message: how connections interleave changes nothing.
        dice = random.Random(f"{self.seed}/{number}/{client_id}/{topic}")
        if dice.random() < self.lose:
            return []
        copies = 2 if dice.random() < self.repeat else 1
        return [dice.uniform(*self.delay_s) for _ in range(copies)]


class FaultInjector:
    """Stands between routing and subscribers, and applies `faults` to every message."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.lost = 0
        self.repeated = 0
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._lanes: dict[tuple[str, str], deque[Deliver]] = {}

    def forward(self, client_id: str, topic: str, deliver: Deliver, *, retained: bool = False) -> None:
        """Call `deliver` never, once or twice, now or later."""
        number = self._numbers[client_id, topic]
        self._numbers[client_id, topic] += 1
        delays = self.faults.fate(client_id, topic, number)
        if retained:
            delays = (delays or [0.0])[:1]
        self.lost += not delays
        self.repeated += len(delays) > 1
        for delay_s in delays:
            self._enqueue((client_id, topic if self.faults.reorder else ""), deliver, delay_s)

    def _enqueue(self, key: tuple[str, str], deliver: Deliver, delay_s: float) -> None:
        lane = self._lanes.get(key)
        if lane is None and delay_s == 0.0:
            deliver()
            return
        if lane is None:
            lane = self._lanes[key] = deque()
        lane.append(deliver)
        asyncio.get_running_loop().call_later(delay_s, self._release, key)

    def _release(self, key: tuple[str, str]) -> None:
        """Deliver the message that has waited longest in this lane: whichever timer rings, order is kept."""
        if not (lane := self._lanes.get(key)):
            return
        deliver = lane.popleft()
        if not lane:
            del self._lanes[key]
        deliver()

    def flush(self) -> None:
        """Deliver at once all that is still waiting."""
        lanes, self._lanes = self._lanes, {}
        for lane in lanes.values():
            for deliver in lane:
                deliver()
