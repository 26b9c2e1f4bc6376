"""Every trial of a tuning that takes hours, kept in a file as it comes, so that it can go on after a stop."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import msgpack

from resonator_hub.frontends import Workload
from resonator_hub.search import Tried


@dataclass(frozen=True)
class Trial:
    """One candidate of a workload, built and measured; `latency_s` is None for a kernel that failed."""

    workload: str
    name: str
    target: str
    trace: bytes
    program: str
    features: bytes
    """Empty for a candidate that was taken over from another target."""
    latency_s: float | None


class Trials:
    """The trials in a file, by workload, on one target."""

    def __init__(self, path: Path, target: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        self._of: defaultdict[str, list[Trial]] = defaultdict(list)
        for trial in self._read():
            if trial.target == target:
                self._of[trial.workload].append(trial)

    def add(self, trial: Trial) -> None:
        """Keep a trial for good."""
        self._of[trial.workload].append(trial)
        self._file.write(msgpack.packb(astuple(trial)))
        self._file.flush()

    def all(self) -> Iterator[Trial]:
        for trials in self._of.values():
            yield from trials

    def seen(self, workload: str) -> frozenset[str]:
        """Return the programs that were tried, whatever came of them."""
        return frozenset(trial.program for trial in self._of[workload])

    def top(self, workload: str, count: int) -> list[Tried]:
        """Return the fastest candidates, fastest first."""
        tried = [Tried(one.trace, one.latency_s) for one in self._of[workload] if one.latency_s is not None]
        return sorted(tried, key=lambda one: one.latency_s)[:count]

    def best_of_kind(self, work: Workload, count: int) -> list[bytes]:
        """Return the traces that are best for operators like this one, as far as names tell."""
        firsts = [trials[0] for trials in self._of.values() if trials]
        alike = [trial for trial in firsts if _kind(trial.name) == _kind(work.name)]
        others = [trial.workload for trial in alike if trial.workload != work.digest]
        return [tried.trace for other in others for tried in self.top(other, 1)][:count]

    def best(self, workload: str) -> float | None:
        return min((one.latency_s for one in self.top(workload, 1)), default=None)

    def slowest(self, workload: str) -> float | None:
        return max((one.latency_s for one in self._of[workload] if one.latency_s is not None), default=None)

    def _read(self) -> Iterator[Trial]:
        """Read what is in the file; what a stop has left unfinished at its end is dropped."""
        self._file.seek(0)
        unpacker = msgpack.Unpacker(self._file, max_buffer_size=2**31)
        whole = 0
        while True:
            try:
                row = unpacker.unpack()
            except msgpack.OutOfData:
                break
            whole = unpacker.tell()
            yield Trial(*row)
        self._file.truncate(whole)


def _kind(name: str) -> str:
    """Return the name of an operator without the numbers that tell it from others of its kind."""
    return re.sub(r"\d", "", name)
