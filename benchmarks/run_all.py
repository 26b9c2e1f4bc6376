"""What `make bench` runs: every bench_*.py in the order of the table, one after the other.

A script that fails costs its own figures only; the failed ones are named at the end, and in the exit status.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from figures import Figure, keep, quick

HERE = Path(__file__).parent

SHORT = (
    "makespan",
    "device_seconds",
    "undisturbed",
    "latency",
    "busy",
    "thesis",
    "scheduler",
    "cost_model",
    "bus",
)
"""Scripts with a short form for QUICK=1, the table's first six rows first."""
LONG = ("models", "warm_start", "savings", "trust", "flood", "load", "dask", "year")
"""Scripts that QUICK=1 leaves out: cut short they mean nothing, or its ten minutes have no place for them."""


def main() -> None:
    durations, failed = [], []
    for name in chosen():
        print(f"\n=== {name}", flush=True)
        began = time.monotonic()
        done = subprocess.run([sys.executable, str(HERE / f"bench_{name}.py")], cwd=HERE)
        took_s = time.monotonic() - began
        durations.append(Figure(f"duration of bench_{name}.py", took_s, "s"))
        if done.returncode:
            failed.append(f"{name} (exit status {done.returncode})")
    print("\n=== durations", flush=True)
    total = sum(figure.value for figure in durations)
    goal = 600.0 if quick() else None
    keep("make bench", [*durations, Figure("duration of make bench", total, "s", goal)])
    if failed:
        sys.exit(f"these benchmarks failed: {', '.join(failed)}; their figures are those of an earlier run")


def chosen() -> list[str]:
    """Return the names of the scripts that are there and wanted, in order; those without a place last."""
    there = {path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py")}
    names = [*SHORT, *LONG, *sorted(there.difference(SHORT, LONG))]
    return [name for name in names if name in there and not (quick() and name not in SHORT)]


if __name__ == "__main__":
    main()
