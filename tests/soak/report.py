"""What a soak came to: figures for people and for machines."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from fakes.guarantees import Evidence
from resonator.messages import JobState
from resonator_hub.scheduler import events
from soak.plan import Fault
from soak.services import Death


@dataclass
class Figures:
    """The numbers of a soak; times in seconds."""

    minutes: float
    seed: int
    shared: bool
    jobs_accepted: int = 0
    jobs: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    trials: int = 0
    results_kept_by_boxes: int = 0
    results_in_journal: int = 0
    results_counted: int = 0
    results_delivered: int = 0
    repeats_delivered: int = 0
    duplicates_refused: int = 0
    windows: int = 0
    windows_by_box: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)
    recovery_median_s: float = 0.0
    recovery_longest_s: float = 0.0
    longest_recovery_after: str = ""
    takeovers_s: list[float] = field(default_factory=list)
    rest_s: float = 0.0
    bundles_fetched: int = 0
    breaches: list[str] = field(default_factory=list)
    accidents: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Return the figures, a line each."""
        rows = [(name.replace("_", " "), _shown(value)) for name, value in asdict(self).items()]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {count}" for key, count in value.items()) or "none"
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _counted(things: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(things).items()))


def count(figures: Figures, evidence: Evidence) -> None:
    """Fill in what the evidence tells."""
    books = evidence.books
    statuses = books.statuses.values()
    measured = [(e.device, e.epoch, e.candidate) for e in books.measured()]
    figures.jobs_accepted = len(evidence.accepted)
    figures.jobs = _counted(status.state.value for status in statuses)
    figures.failures = _counted(str(s.failure)[:120] for s in statuses if s.state is JobState.FAILED)
    figures.trials = sum(status.trials for status in statuses)
    lines = [line for life in evidence.lives for line in life.lines]
    figures.results_kept_by_boxes = sum(line.event in {"measured", "failed"} for line in lines)
    figures.results_in_journal = len(set(measured))
    figures.duplicates_refused = len(measured) - len(set(measured))
    figures.results_counted = len(books.records)
    opened = {
        (life.device, n.epoch) for life in evidence.lives for n in life.lines if n.event == "window open"
    }
    figures.windows = len(opened)
    figures.windows_by_box = _counted(device for device, _ in sorted(opened))


def count_faults(figures: Figures, faults: list[Fault], deaths: list[Death], evidence: Evidence) -> None:
    """Fill in what was done, who died of it, and how long it took until something was measured again."""
    figures.faults = _counted(fault.kind for fault in faults if fault.harmed)
    figures.deaths = _counted(f"{death.service} with {death.code}" for death in deaths)
    figures.accidents = [
        f"{d.service} ended with {d.code}: {d.last_words[-1500:]}" for d in deaths if d.is_accident
    ]
    at = sorted(e.at for e in evidence.books.journal if isinstance(e, events.Measured))
    waits = []
    for fault in faults:
        after = [moment for moment in at if fault.mended_at is not None and moment > fault.mended_at]
        if fault.harmed and fault.mended_at is not None and after:
            waits.append((after[0] - fault.mended_at, str(fault)))
    if waits:
        figures.recovery_median_s = statistics.median(seconds for seconds, _ in waits)
        figures.recovery_longest_s, figures.longest_recovery_after = max(waits)


def takeovers(faults: list[Fault], leads: list[tuple[float, str]]) -> list[float]:
    """Return how long after each kill -9 of a leading hub one led; `leads` says who began to lead when."""
    found = []
    for fault in faults:
        before = [lead for lead in leads if lead[0] < fault.began_at]
        after = [lead for lead in leads if lead[0] > fault.began_at]
        if fault.kind == "hub killed" and before and after and max(before)[1] == fault.target:
            found.append(round(min(after)[0] - fault.began_at, 1))
    return found
