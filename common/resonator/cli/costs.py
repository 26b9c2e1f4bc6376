"""What a job cost, as a table of outcomes."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from resonator.cli.output import duration, energy
from resonator.messages import Cost, Outcome

_NAMES: dict[Outcome, str] = {
    "measured": "measured in full",
    "raced": "too slow for that",
    "failed": "failed on the device",
    "build_failed": "could not be built",
    "discarded": "discarded",
    "under_way": "under way",
    "search": "search, cost model",
    "model": "the whole model",
}


def costs_table(costs: Sequence[Cost]) -> Table:
    """Draw one row an outcome, and their sum below."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("spent on", no_wrap=True)
    for column in ("trials", "device", "processor", "energy"):
        table.add_column(column, justify="right", no_wrap=True)
    for cost in costs:
        trials = str(cost.trials) if cost.trials else ""
        table.add_row(_NAMES[cost.outcome], trials, *_amounts([cost]))
    table.add_row("in all", str(sum(cost.trials for cost in costs)), *_amounts(costs), style="bold")
    return table


def spent(costs: Sequence[Cost]) -> str:
    """Write what was spent in a word: seconds of devices and of processors together."""
    return duration(sum(cost.device_s + cost.cpu_s for cost in costs)) if costs else "-"


def _amounts(costs: Sequence[Cost]) -> tuple[str, str, str]:
    known = [cost.joules for cost in costs if cost.joules is not None]
    return (
        duration(sum(cost.device_s for cost in costs)),
        duration(sum(cost.cpu_s for cost in costs)),
        energy(sum(known) if known else None),
    )
