"""Makespan of two tuning jobs of equal trials: Resonator against TVM's MetaSchedule over its RPC tracker.

Search and build have core 0, the device core 1, on both sides. QUICK=1 makes 32 trials a job instead of 64.
The peer tunes one job after the other: both at once on one core of the hub do not end (DESIGN section 10).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import Figure, keep, quick
from fleets import HUB_CORE, fleet_of_resonator, fleet_of_tvm, need_two_cores, on, resonator, target
from operators import OPERATORS, model

HERE = Path(__file__).parent
TRIALS = 32 if quick() else 64
Curve = list[tuple[float, float]]
"""Seconds since the start, and the best latency in seconds until then."""


def main() -> None:
    need_two_cores()
    peer_s, peer = run_peer()
    ours_s, ours, submitted = run_resonator()
    figures = [
        Figure(f"TVM over its RPC tracker: makespan of two jobs of {TRIALS} trials", peer_s, "s"),
        Figure(f"Resonator: makespan of two jobs of {TRIALS} trials, start-up included", ours_s, "s"),
        Figure(
            f"Resonator: makespan of two jobs of {TRIALS} trials from their submission",
            ours_s - submitted,
            "s",
        ),
    ]
    for name in OPERATORS:
        figures.append(Figure(f"{name}: best latency, TVM", peer[name][-1][1] * 1e6, "us"))
        figures.append(Figure(f"{name}: best latency, Resonator", ours[name] * 1e6, "us"))
    figures.append(Figure(f"makespan at {TRIALS} trials, Resonator / TVM", ours_s / peer_s, "x", goal=0.2))
    keep("makespan", figures)


def run_peer() -> tuple[float, dict[str, Curve]]:
    """Tune both operators, one after the other; return the seconds it took and the curves."""
    began = time.monotonic()
    curves = {}
    with fleet_of_tvm() as tracker:
        for name in OPERATORS:
            command = [sys.executable, "peer_tvm.py", name, str(TRIALS), target(), str(tracker), "1"]
            done = subprocess.run(on(HUB_CORE, command), stdout=subprocess.PIPE, check=True, cwd=HERE)
            curves[name] = json.loads(done.stdout.splitlines()[-1])
            print(f"TVM: {name} done {time.monotonic() - began:.0f} s after the start", flush=True)
    return time.monotonic() - began, curves


def run_resonator() -> tuple[float, dict[str, float], float]:
    """Tune both at once; return the seconds it took, the latencies, and when they were submitted."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, fleet_of_resonator(Path(folder)) as broker:
        submitted = time.monotonic() - began
        jobs = [submit(Path(folder), name, broker) for name in OPERATORS]
        latencies = {}
        for name, job in zip(OPERATORS, jobs, strict=True):
            last = json.loads(job.communicate()[0].splitlines()[-1])
            assert last["state"] == "succeeded", last
            latencies[name] = min(task["best"] for task in last["tasks"] if task["best"])
            print(f"Resonator: {name} done {time.monotonic() - began:.0f} s after the start", flush=True)
    return time.monotonic() - began, latencies, submitted


def submit(folder: Path, name: str, broker: str) -> subprocess.Popen[bytes]:
    """Submit one operator and watch it."""
    path = folder / f"{name}.onnx"
    path.write_bytes(model(name))
    job = folder / f"{name}.yaml"
    job.write_text(
        json.dumps(
            {
                "metadata": {"name": name},
                "spec": {
                    "model": {"onnx": path.name},
                    "target": {"kind": "cpu"},
                    "budget": {"trials": TRIALS},
                    "measure": {"number": 3, "repeat": 1, "min_repeat_ms": 100},
                },
            }
        )
    )
    command = resonator("submit", str(job), "--broker", broker, "--wait", "--json")
    return subprocess.Popen(on(HUB_CORE, command), stdout=subprocess.PIPE)


if __name__ == "__main__":
    main()
