"""Which fault comes when: drawn from a seed alone, so that a soak can be told again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from soak.faults import KINDS, Kind, Unharmed
from soak.town import Town

GAP_S = (20.0, 40.0)
SHORT_GAP_S = (6.0, 12.0)
SHORT_MINUTES = 10.0


@dataclass
class Fault:
    """One fault of a soak; times in seconds since the epoch, `mended_at` is None while it lasts."""

    kind: str
    target: str
    began_at: float
    lasts_s: float
    mended_at: float | None = None
    harmed: bool = True

    def __str__(self) -> str:
        lasting = f" for {self.lasts_s:.0f} s" if self.lasts_s else ""
        return f"{self.kind}: {self.target}{lasting}"


@dataclass(frozen=True)
class Planned:
    """A fault to come, `after_s` seconds after the one before it."""

    after_s: float
    kind: Kind
    target: str
    lasts_s: float


def plan(town: Town, minutes: float, seed: int) -> Iterator[Planned]:
    """Yield faults for ever; in a short soak they come faster and last shorter."""
    dice = random.Random(seed)
    gap_s = GAP_S if minutes >= SHORT_MINUTES else SHORT_GAP_S
    kinds = [kind for kind in KINDS if kind.targets(town)]
    while True:
        # Every kind comes once in a random order before chance alone decides.
        for kind in dice.sample(kinds, len(kinds)):
            yield _drawn(town, kind, gap_s, minutes, dice)
        for kind in dice.choices(kinds, [kind.weight for kind in kinds], k=len(kinds)):
            yield _drawn(town, kind, gap_s, minutes, dice)


def _drawn(
    town: Town, kind: Kind, gap_s: tuple[float, float], minutes: float, dice: random.Random
) -> Planned:
    least, most = kind.lasts_s
    most = max(least, min(most, minutes * 60 / 6))
    return Planned(dice.uniform(*gap_s), kind, dice.choice(kind.targets(town)), dice.uniform(least, most))


class Storm:
    """Carries a plan out; `faults` are those that came, `failures` what a fault found that must not be."""

    def __init__(self, town: Town) -> None:
        self.faults: list[Fault] = []
        self.failures: list[str] = []
        self._town = town
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def run(self, planned: Iterator[Planned]) -> None:
        """Do one fault after the other until cancelled; those that last overlap, but not on one target."""
        for one in planned:
            await asyncio.sleep(one.after_s)
            if one.target not in self._under_way:
                task = asyncio.create_task(self._do(one), name=f"{one.kind.name} {one.target}")
                self._under_way[one.target] = task

    async def calm(self) -> None:
        """Wait until everything is mended."""
        if self._under_way:
            await asyncio.wait(list(self._under_way.values()))

    async def _do(self, one: Planned) -> None:
        fault = Fault(one.kind.name, one.target, time.time(), one.lasts_s)
        self.faults.append(fault)
        print(f"{time.strftime('%H:%M:%S')}  {fault}", flush=True)
        try:
            await one.kind.harm(self._town, one.target, one.lasts_s)
        except Unharmed:
            fault.harmed = False
        except Exception as error:
            self.failures.append(f"{fault}: {type(error).__name__}: {error}")
        finally:
            fault.mended_at = time.time()
            del self._under_way[one.target]
