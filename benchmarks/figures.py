"""What a benchmark found: kept in results.json, one list for all scripts, and drawn as RESULTS.md."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
TABLE = HERE / "RESULTS.md"
_PACKAGES = ("apache-tvm", "onnxruntime", "xgboost-cpu", "aiomqtt")

ROWS = {
    "makespan": "Makespan of two jobs, equal trials",
    "time to quality": "Time to the peer's final latency",
    "final latency": "Final latency at equal trials",
    "stages": "Where the time of both jobs goes",
    "device_seconds": "Device-seconds per trial",
    "undisturbed": "Undisturbed measurement",
    "latency": "Latency-proof bus",
    "busy": "Busy device",
    "thesis": "Thesis replay",
    "scheduler": "Scheduler",
    "year": "A hub that ran for a year",
    "cost_model": "Cost-model update",
    "models": "Whole models",
    "warm_start": "Warm start",
    "savings": "Energy and cost",
    "bus": "The bus by itself",
    "trust": "What certificates and signatures cost",
    "dask": "Compute on a Dask cluster",
    "flood": "Floods of bad messages",
    "load": "2,000 agents at one hub",
    "make bench": "Durations of the scripts",
}
"""What RESULTS.md shows, in this order; a figure names its row, or belongs to that of its script's name."""


@dataclass(frozen=True)
class Figure:
    """One measured value; `goal` is the most it should be, or the least with `more_is_better`.

    `row` is a key of `ROWS` where it is not the script's name; `note` says what the number alone would not.
    """

    name: str
    value: float
    unit: str
    goal: float | None = None
    more_is_better: bool = False
    row: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.more_is_better else self.value <= self.goal


def quick() -> bool:
    """Whether QUICK=1 asks for the shortest run that still means something."""
    return os.environ.get("QUICK", "") not in ("", "0")


def keep(script: str, figures: list[Figure]) -> None:
    """Print a script's figures and put them in place of its former ones."""
    for figure in figures:
        print(_line(figure), flush=True)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    rows = [row for row in known if row["script"] != script]
    rows += [_row(script, figure) for figure in figures]
    rows.sort(key=_place)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    TABLE.write_text(table(rows))


def _line(figure: Figure) -> str:
    goal = "" if figure.goal is None else f"   goal {figure.goal:g}, {'met' if figure.met else 'not met'}"
    note = f"   ({figure.note})" if figure.note else ""
    return f"{figure.name:66} {figure.value:10.4g} {figure.unit}{goal}{note}"


def _row(script: str, figure: Figure) -> dict[str, Any]:
    told = asdict(figure)
    return {**told, "row": figure.row or script, "met": figure.met, "script": script, "on": _machine()}


def _place(row: dict[str, Any]) -> tuple[int, str]:
    """Sort rows as the table shows them; those of one script stay as it gave them."""
    name = row.get("row", row["script"])
    return (list(ROWS).index(name) if name in ROWS else len(ROWS), name)


def _machine() -> dict[str, str]:
    processor = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
    packages = {name: version(name) for name in _PACKAGES}
    return {
        "processor": f"{processor}, {os.cpu_count()} cores",
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "date": date.today().isoformat(),
        "quick": str(quick()),
        **packages,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return all figures as Markdown: a table for each row of `ROWS`, the machines below."""
    lines = ["# Results", "", "Written by `make bench`; the numbers to compute with are in results.json.", ""]
    judged = [row for row in rows if row["met"] is not None]
    if judged:
        met = sum(bool(row["met"]) for row in judged)
        lines += [f"{met} of {len(judged)} goals are met.", ""]
    machines: list[str] = []
    titles = list(dict.fromkeys(row.get("row", row["script"]) for row in rows))
    for title in titles:
        lines += [f"## {ROWS.get(title, title)}", ""]
        lines += ["| figure | value | goal | met | machine |", "|---|---:|---:|---|---|"]
        own = [row for row in rows if row.get("row", row["script"]) == title]
        lines += [*(_cells(row, _number(row["on"], machines)) for row in own), ""]
        lines += [f"- {row['name']}: {row['note']}." for row in own if row.get("note")]
        lines += [""] if any(row.get("note") for row in own) else []
    lines += ["## Machines", "", *(f"{number}. {machine}" for number, machine in enumerate(machines, 1))]
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any], machine: int) -> str:
    sign = "at least" if row["more_is_better"] else "at most"
    goal = "" if row["goal"] is None else f"{sign} {row['goal']:g}"
    met = {None: "", True: "yes", False: "**no**"}[row["met"]]
    where = f"{machine}, quick" if row["on"]["quick"] == "True" else str(machine)
    return f"| {row['name']} | {row['value']:.4g} {row['unit']} | {goal} | {met} | {where} |"


def _number(on: dict[str, str], machines: list[str]) -> int:
    """Return the number of the machine in the list, from 1; a new one is added to it."""
    versions = ", ".join(f"{name} {on[name]}" for name in _PACKAGES if name in on)
    machine = f"{on['processor']}; {on['system']}; Python {on['python']}; {versions}; {on['date']}"
    if machine not in machines:
        machines.append(machine)
    return machines.index(machine) + 1
