"""What the box draws while it measures: RAPL's counters before and after, INA sensors sampled in between.

Everything is read from files below `root`. The energy is that of the whole box as far as its sensors see it,
idle parts included: what the box would have drawn anyway is not told from what the kernel cost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from resonator.messages import MAX_WATTS
from resonator_agent.sysfs import number, text

SAMPLE_S = 0.1
"""How often INA sensors are read: each reading is a conversation over I2C, of about a millisecond."""

_CHANNELS = (1, 2, 3)
"""The rails of an INA3221; further inputs of its driver are shunt voltages and sums of these."""
_TOTALS = {"VDD_IN", "VIN", "POM_5V_IN"}
"""Rails that feed all others of a Jetson module: adding these would count them twice."""


@dataclass(frozen=True)
class Zone:
    """A RAPL counter in microjoules, which begins again at 0 beyond `range_uj`."""

    counter: Path
    range_uj: float

    def read_uj(self) -> float | None:
        """Return the counter; None where it may not be read, as by ordinary users on most systems."""
        return number(self.counter)


@dataclass(frozen=True)
class Rail:
    """A supply measured by an INA chip: the factors of its power, in files, and their product's unit in W."""

    label: str
    factors: tuple[Path, ...]

    def watts(self) -> float | None:
        """Return the power, from microwatts, or from millivolts times milliamperes."""
        product = 1e-6
        for factor in self.factors:
            value = number(factor)
            if value is None:
                return None
            product *= value
        return product


@dataclass
class Integral:
    """Energy from samples of power, by the trapezoidal rule; None once a sample was missing."""

    joules: float | None = 0.0
    _last: tuple[float, float] | None = field(default=None, repr=False)

    def add(self, at: float, watts: float | None) -> None:
        """Take a sample at `at` seconds."""
        if watts is None or self.joules is None:
            self.joules = None
            return
        if self._last is not None:
            last_at, last_watts = self._last
            self.joules += (at - last_at) * (watts + last_watts) / 2
        self._last = (at, watts)


@dataclass
class Spent:
    """What a span of time took, in joules, known at its end; None where the box does not tell."""

    joules: float | None = None


class EnergyMeter:
    """Tells how much energy passed while something was done; `clock` gives monotonic seconds."""

    def __init__(self, *, clock: Callable[[], float], root: Path = Path("/")):
        self._clock = clock
        self._zones = rapl_zones(root)
        self._rails = () if self._zones else ina_rails(root)

    @contextmanager
    def measuring(self) -> Iterator[Spent]:
        """Measure what is done within; RAPL costs two readings, INA sensors are sampled by a task."""
        spent, began = Spent(), self._clock()
        if self._zones:
            before = self._counters()
            yield spent
            spent.joules = consumed(self._zones, before, self._counters())
        elif self._rails:
            integral = Integral()
            sampling = asyncio.ensure_future(self._sample(integral))
            self._add(integral)
            try:
                yield spent
            finally:
                sampling.cancel()
            self._add(integral)
            spent.joules = integral.joules
        else:
            yield spent
        # A counter that was reset looks as if it had wrapped around.
        if spent.joules is not None and not 0 <= spent.joules <= MAX_WATTS * (self._clock() - began):
            spent.joules = None

    def _counters(self) -> list[float | None]:
        return [zone.read_uj() for zone in self._zones]

    async def _sample(self, integral: Integral) -> None:
        while True:
            await asyncio.sleep(SAMPLE_S)
            self._add(integral)

    def _add(self, integral: Integral) -> None:
        values = [rail.watts() for rail in self._rails]
        known = [value for value in values if value is not None]
        integral.add(self._clock(), sum(known) if len(known) == len(values) else None)


def rapl_zones(root: Path) -> tuple[Zone, ...]:
    """Return the packages, and the memory beside them; none unless all of them can be read.

    Cores and graphics are part of their package, and a platform's zone (`psys`) is not calibrated on many.
    """
    zones = []
    for folder in sorted(root.glob("sys/class/powercap/intel-rapl:*")):
        name = text(folder / "name").strip()
        if name.startswith("package") or name == "dram":
            zones.append(Zone(folder / "energy_uj", number(folder / "max_energy_range_uj") or 0.0))
    return tuple(zones) if all(zone.read_uj() is not None for zone in zones) else ()


def ina_rails(root: Path) -> tuple[Rail, ...]:
    """Return the rails of all INA chips that can be read; only the one that feeds the others where known."""
    rails = []
    for folder in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if text(folder / "name").startswith("ina"):
            rails += [rail for channel in _CHANNELS if (rail := _rail(folder, channel))]
    return tuple(rail for rail in rails if rail.label in _TOTALS) or tuple(rails)


def _rail(folder: Path, channel: int) -> Rail | None:
    label = text(folder / f"in{channel}_label").strip()
    power = (folder / f"power{channel}_input",)
    product = (folder / f"in{channel}_input", folder / f"curr{channel}_input")
    for factors in (power, product):
        rail = Rail(label, factors)
        if rail.watts() is not None:
            return rail
    return None


def consumed(zones: tuple[Zone, ...], before: list[float | None], after: list[float | None]) -> float | None:
    """Return the joules between two readings of the counters, each of which may have wrapped around once."""
    total_uj = 0.0
    for zone, earlier, later in zip(zones, before, after, strict=True):
        if earlier is None or later is None or (later < earlier and not zone.range_uj):
            return None
        total_uj += later - earlier if later >= earlier else later + zone.range_uj - earlier
    return total_uj * 1e-6
