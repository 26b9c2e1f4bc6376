"""What the filter of poor candidates and the pre-emption of tasks and jobs save of a job's cost.

light_squeezenet is tuned with and without, on a fresh hub each time (`plain_hub.py` is the one without), hub
on core 0 and device on core 1, with a budget of 64 trials for each of its 30 tasks. Cost is device-seconds
and processor-seconds, added up as the job's ledger does; latency is the sum of the operators' best, by how
often they occur. What counts is the cost of the whole job, against that of the plain one, where it ends
within 1 % of the latency that the plain one ends with. `--seeds 1..2` says which seeds; QUICK=1 makes one
of 192 trials.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, median

from figures import Figure, keep, quick
from fleets import HUB_CORE, agent, await_idle, await_port, free_port, need_two_cores, on, resonator, running
from models import model

from resonator.ids import CandidateId, TaskId
from resonator_hub.database import Database
from resonator_hub.journal import JOURNAL, Journal
from resonator_hub.scheduler.events import Answer, Event, Measured, TasksExtracted
from resonator_hub.scheduler.ledger import Ledger

HERE = Path(__file__).parent
MODEL = "light_squeezenet"
TRIALS = 192 if quick() else 1920
EQUAL = 1.01
"""Latencies up to this many times as long count as equal."""
GOAL = None if quick() else 0.55
"""Of so few trials as a quick run has, there is nothing to pre-empt: no goal then."""
PLAIN, DEFAULT = "without", "with filter and pre-emption"
PROGRAMS: Mapping[str, Sequence[str]] = {
    PLAIN: (sys.executable, str(HERE / "plain_hub.py")),
    DEFAULT: resonator("hub"),
}


@dataclass(frozen=True)
class Point:
    """So much was spent, in device-seconds and processor-seconds, when the model's latency was this (s)."""

    device_s: float
    cpu_s: float
    latency_s: float

    @property
    def cost_s(self) -> float:
        return self.device_s + self.cpu_s


Curve = list[Point]


def main() -> None:
    need_two_cores()
    seeds = _seeds()
    runs: dict[str, list[Curve]] = {PLAIN: [], DEFAULT: []}
    for seed in seeds:
        for side, curves in runs.items():
            curves.append(tuned(side, seed))
    keep("savings", figures(runs[PLAIN], runs[DEFAULT]))


def _seeds() -> range:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="1..1" if quick() else "1..2", metavar="FIRST..LAST")
    first, _, last = parser.parse_args().seeds.partition("..")
    return range(int(first), int(last or first) + 1)


def figures(plain: Sequence[Curve], default: Sequence[Curve]) -> list[Figure]:
    """Return what both sides cost, and the ratio last; curves are paired by seed."""
    whole, first = [], []
    for ours, theirs in zip(default, plain, strict=True):
        equal_s = theirs[-1].latency_s * EQUAL
        met = ours[-1].latency_s <= equal_s
        whole.append(ours[-1].cost_s / theirs[-1].cost_s if met else 1.0)
        first.append(reached(ours, equal_s) / reached(theirs, equal_s))
    told = [
        Figure(f"{side}: {what}, up to {TRIALS} trials", median(value(curve[-1]) for curve in curves), unit)
        for side, curves in ((PLAIN, plain), (DEFAULT, default))
        for what, value, unit in (
            ("device-seconds", lambda point: point.device_s, "s"),
            ("processor-seconds", lambda point: point.cpu_s, "s"),
            ("final latency, sum of operators", lambda point: point.latency_s * 1e3, "ms"),
        )
    ]
    latency = geometric_mean([a[-1].latency_s / b[-1].latency_s for a, b in zip(default, plain, strict=True)])
    sample = f"geometric mean of {len(plain)} seeds; 1 where the final latency is more than 1 % longer"
    return [
        *told,
        Figure("final latency, with / without", latency, "x"),
        Figure(
            "cost until the plain job's final latency, with / without",
            geometric_mean(first),
            "x",
        ),
        Figure("cost of the job, with / without", geometric_mean(whole), "x", goal=GOAL, note=sample),
    ]


def reached(curve: Curve, latency_s: float) -> float:
    """Return what had been spent when the latency first was as low as this, or at the end if it never was."""
    return next((point.cost_s for point in curve if point.latency_s <= latency_s), curve[-1].cost_s)


def tuned(side: str, seed: int) -> Curve:
    """Have a fresh hub tune the model."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with fleet(folder, PROGRAMS[side]) as broker:
            _submit(folder, broker, seed)
        curve = costs(folder / "hub" / JOURNAL)
    if not curve:
        sys.exit(f"{TRIALS} trials are too few: some operators of {MODEL} have no latency")
    last = curve[-1]
    print(
        f"{side}, seed {seed}: {last.latency_s * 1e3:.3f} ms after {last.device_s:.1f} device-seconds "
        f"and {last.cpu_s:.1f} processor-seconds",
        flush=True,
    )
    return curve


@contextmanager
def fleet(folder: Path, program: Sequence[str]) -> Iterator[str]:
    """Start a hub by `program` with its own broker, and an agent; yields the broker's address."""
    port = free_port()
    broker = f"mqtt://127.0.0.1:{port}"
    options = f"--broker embedded --port {port} --cores {HUB_CORE} --state {folder}/hub".split()
    with running(on(HUB_CORE, [*program, *options])):
        await_port(port)
        with agent(folder, broker):
            await_idle(broker)
            yield broker


def _submit(folder: Path, broker: str, seed: int) -> None:
    (folder / "model.onnx").write_bytes(model(MODEL))
    spec = {
        "model": {"onnx": "model.onnx"},
        "target": {"kind": "cpu"},
        "budget": {"trials": TRIALS},
        "seed": seed,
    }
    job = folder / "job.yaml"
    job.write_text(json.dumps({"metadata": {"name": "savings"}, "spec": spec}))
    command = resonator("submit", str(job), "--broker", broker, "--wait", "--json")
    told = subprocess.run(on(HUB_CORE, command), stdout=subprocess.PIPE).stdout
    status = json.loads(told.splitlines()[-1]) if told else {}
    if status.get("state") != "succeeded":
        sys.exit(f"the job did not succeed: {status.get('failure')}")


def costs(journal: Path) -> Curve:
    """Return how cost and latency went along in a journal of one job, from its first complete latency on."""
    database = Database.read(journal)
    try:
        return list(_points(Journal(database).events()))
    finally:
        database.close()


def _points(events: Iterator[Event]) -> Iterator[Point]:
    ledger = Ledger()
    weights: dict[TaskId, int] = {}
    best: dict[TaskId, float] = {}
    for event in events:
        if isinstance(event, TasksExtracted):
            weights = {found.task: found.weight for found in event.tasks}
        if isinstance(event, Answer):
            ledger.answered(event, taken=True)
        elif isinstance(event, Measured):
            ledger.measured(event, taken=True)
            _learn(best, event)
            if weights and len(best) == len(weights):
                _, total = ledger.costs()
                yield Point(
                    sum(cost.device_s for cost in total),
                    sum(cost.cpu_s for cost in total),
                    sum(weight * best[task] for task, weight in weights.items()),
                )


def _learn(best: dict[TaskId, float], event: Measured) -> None:
    task = _task(event.candidate)
    if task is not None and event.latencies and not event.raced:
        best[task] = min(best.get(task, float("inf")), median(event.latencies))


def _task(candidate: CandidateId) -> TaskId | None:
    task, _, _ = candidate.rpartition("/c")
    return TaskId(task) if task else None


if __name__ == "__main__":
    main()
