"""What a benchmark found: kept in results.json, one list for all scripts, and drawn as RESULTS.md."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
TABLE = HERE / "RESULTS.md"
_PACKAGES = ("apache-tvm", "onnxruntime", "xgboost-cpu", "aiomqtt")


@dataclass(frozen=True)
class Figure:
    """One measured value; `goal` is the most it should be, or the least with `more_is_better`."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    more_is_better: bool = False

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
        goal = "" if figure.goal is None else f"   goal {figure.goal:g}, {'met' if figure.met else 'not met'}"
        print(f"{figure.name:58} {figure.value:10.4g} {figure.unit}{goal}", flush=True)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    rows = [row for row in known if row["script"] != script]
    rows += [{**asdict(one), "met": one.met, "script": script, "on": _machine()} for one in figures]
    rows.sort(key=lambda row: row["script"])
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    TABLE.write_text(_table(rows))


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


def _table(rows: list[dict[str, object]]) -> str:
    lines = ["# Results", "", "Written by `make bench`; the machine and versions are in results.json.", ""]
    lines += ["| script | figure | value | goal |", "|---|---|---|---|"]
    for row in rows:
        goal = "" if row["goal"] is None else f"{row['goal']:g}: {'met' if row['met'] else '**not met**'}"
        lines.append(f"| {row['script']} | {row['name']} | {row['value']:.4g} {row['unit']} | {goal} |")
    return "\n".join(lines) + "\n"
