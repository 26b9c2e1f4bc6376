"""What the box is like while it measures: clocks, temperature, and who else uses the cores.

Everything is read from files below `root`, so that a recorded or invented tree will do in a test.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from resonator.messages import Conditions
from resonator_agent.sysfs import number, text

MIN_SPAN_S = 0.3
"""Processor time is counted in ticks of 10 ms: a shorter span would tell of the ticks, not of the load."""
MAX_LEAD_S = 2.0
"""How far a span may begin before what it is to judge; more would dilute the load during it."""

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_MHZ = re.compile(r"^processor\s*:\s*(\d+)$|^cpu MHz\s*:\s*([0-9.]+)$", re.MULTILINE)


@dataclass(frozen=True)
class LoadSample:
    """Processor seconds up to the moment `at`: everyone's on the cores used, and the agent's processes'."""

    at: float
    busy: float
    own: float


class ConditionsProbe:
    """Reads the box's conditions; `own_pids` names the processes whose load is not foreign.

    `clock` gives monotonic seconds and `cores` the cores used.
    """

    def __init__(
        self,
        cores: Sequence[int],
        *,
        clock: Callable[[], float],
        own_pids: Callable[[], Sequence[int]],
        root: Path = Path("/"),
    ):
        self._cores = tuple(cores)
        self._clock = clock
        self._own_pids = own_pids
        self._root = root
        self._samples: deque[LoadSample] = deque(maxlen=256)

    def read(self, since: float | None = None) -> Conditions:
        """Return the conditions right now; the foreign load is that since `since`, or of the last moments."""
        return Conditions(
            frequency_hz=self.frequency_hz(),
            temperature_c=self.temperature_c(),
            foreign_load=self.load(since),
        )

    def load(self, since: float | None = None) -> float | None:
        """Sample the load; return the foreign share (0..1) over a span that covers everything since `since`.

        None where no earlier sample makes a span of at least MIN_SPAN_S that begins soon enough before it.
        """
        now = self._sample()
        if now is None:
            return None
        latest = min(now.at - MIN_SPAN_S, now.at if since is None else since)
        earlier = [sample for sample in self._samples if latest - MAX_LEAD_S <= sample.at <= latest]
        self._samples.append(now)
        return foreign_load(earlier[-1], now, len(self._cores)) if earlier else None

    def forget(self) -> None:
        """Drop the samples: a process of the agent's own has been replaced, its time is no longer known."""
        self._samples.clear()

    def frequency_hz(self) -> float | None:
        """Return the mean frequency of the cores used, in Hz, or None."""
        folder = self._root / "sys/devices/system/cpu"
        scaled = [
            number(folder / f"cpu{core}/cpufreq/scaling_cur_freq", scale=1000.0) for core in self._cores
        ]
        found = [value for value in scaled if value is not None] or self._cpuinfo_hz()
        return sum(found) / len(found) if found else None

    def _cpuinfo_hz(self) -> list[float]:
        core, found = -1, []
        for processor, mhz in _MHZ.findall(text(self._root / "proc/cpuinfo")):
            if processor:
                core = int(processor)
            elif core in self._cores:
                found.append(float(mhz) * 1e6)
        return found

    def temperature_c(self) -> float | None:
        """Return the hottest sensor's temperature in degrees Celsius, or None."""
        sensors = sorted(self._root.glob("sys/class/thermal/thermal_zone*/temp"))
        sensors += sorted(self._root.glob("sys/class/hwmon/hwmon*/temp*_input"))
        readings = [number(path, scale=1e-3) for path in sensors]
        # Sensors that are switched off read absurd values.
        return max((value for value in readings if value is not None and -50 < value < 150), default=None)

    def _sample(self) -> LoadSample | None:
        at = self._clock()
        busy = self._busy_s()
        own = [self._process_s(pid) for pid in self._own_pids()]
        return None if busy is None else LoadSample(at, busy, sum(own))

    def _busy_s(self) -> float | None:
        wanted = {f"cpu{core}" for core in self._cores}
        ticks, seen = 0, 0
        for line in text(self._root / "proc/stat").splitlines():
            name, *fields = line.split()
            if name in wanted:
                user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
                ticks += user + nice + system + irq + softirq + steal
                seen += 1
        return ticks * _TICK_S if seen == len(wanted) else None

    def _process_s(self, pid: int) -> float:
        # The name, in parentheses, may itself hold blanks and parentheses.
        _, _, rest = text(self._root / f"proc/{pid}/stat").rpartition(")")
        fields = rest.split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S if len(fields) > 12 else 0.0


def foreign_load(earlier: LoadSample, later: LoadSample, cores: int) -> float:
    """Return the share (0..1) of `cores` that others than the agent took between two samples."""
    foreign = (later.busy - earlier.busy) - (later.own - earlier.own)
    return min(1.0, max(0.0, foreign / ((later.at - earlier.at) * cores)))
