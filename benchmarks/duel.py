"""One run of a side of the comparison: both operators tuned, by TVM over its RPC tracker or by Resonator.

What a run found is kept as `raw/SIDE-TRIALS-SEED.json`: an interrupted comparison goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fleets import HUB_CORE, agent, await_hub, fleet_of_tvm, hub, on, resonator, target
from operators import OPERATORS, model

from resonator.bus.blobs import BlobStore
from resonator.ids import JobId
from resonator_hub.database import Database
from resonator_hub.journal import JOURNAL, Journal
from resonator_hub.timeline import spans

HERE = Path(__file__).parent
RAW = HERE / "raw"
FRESH_S = 24 * 3600.0
"""How long a run counts as part of today's comparison."""
JOB_LIMIT_S = 600.0
"""A job of ours that takes longer than this has lost its hub."""
PEER_STAGES = {
    "select": "EvoSearch/",
    "build": "SendToBuilder",
    "measure": "JoinRunnerFutures",
    "update": "MeasureCallback/UpdateCostModel",
}
"""How TVM's profiler calls the stages of tuning: timers that begin with this."""
PRODUCT = ("common", "edge_agent", "hub")

Curve = list[tuple[float, float]]
"""Seconds since the job began, and the best latency in seconds until then."""


@dataclass(frozen=True)
class Winner:
    """The best kernel of a job, in the form that `resonator_hub.build` takes; the bytes in base64."""

    workload: str
    trace: str
    target: str


@dataclass(frozen=True)
class Tuned:
    """One operator, tuned: when its job ended, in seconds, after how many trials, and what it found."""

    ended_s: float
    trials: int
    curve: Curve
    winner: Winner
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds by stage of tuning."""

    @property
    def latency_s(self) -> float:
        """The best latency, as the side itself measured it."""
        return self.curve[-1][1]

    def reached(self, latency_s: float) -> float | None:
        """Return when the curve came down to `latency_s`; None if it never did."""
        return next((at for at, best in self.curve if best <= latency_s), None)


@dataclass(frozen=True)
class Run:
    """Both operators, tuned: seconds from the start of the first process to the last result."""

    makespan_s: float
    ready_s: float
    """When the first job could be submitted."""
    tuned: dict[str, Tuned]


def kept(side: str, trials: int, seed: int, run: Callable[[int, int], Run]) -> Run:
    """Return the run of a side and seed: today's, where it was already made with this code, or a new one."""
    path = RAW / f"{side}-{trials}-{seed}.json"
    code = _fingerprint() if side.startswith("resonator") else ""
    if path.exists() and time.time() - path.stat().st_mtime < FRESH_S:
        raw = json.loads(path.read_text())
        if raw["code"] == code:
            print(f"{side}, seed {seed}: taken from {path.relative_to(HERE)}", flush=True)
            return _read(raw["run"])
    made = run(trials, seed)
    RAW.mkdir(exist_ok=True)
    path.write_text(json.dumps({"code": code, "run": asdict(made)}))
    return made


def _read(raw: dict[str, object]) -> Run:
    tuned = {
        name: Tuned(
            **{**one, "curve": [tuple(point) for point in one["curve"]], "winner": Winner(**one["winner"])}
        )
        for name, one in raw["tuned"].items()  # type: ignore[attr-defined]
    }
    return Run(**{**raw, "tuned": tuned})  # type: ignore[arg-type]


def _fingerprint() -> str:
    """Return a digest of the product's source: a run of another version does not count."""
    files = sorted(file for folder in PRODUCT for file in (HERE.parent / folder).rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def tvm_in_turn(trials: int, seed: int) -> Run:
    """Tune one operator after the other with TVM, each in a process of its own, as its users do."""
    began = time.monotonic()
    tuned = {}
    with fleet_of_tvm() as tracker:
        ready_s = time.monotonic() - began
        for name in OPERATORS:
            with _peer(name, trials, tracker, seed) as process:
                tuned[name] = _of_peer(process.communicate()[0])
            print(
                f"TVM, seed {seed}: {name} done {time.monotonic() - began:.0f} s after the start", flush=True
            )
    return Run(time.monotonic() - began, ready_s, tuned)


def tvm_at_once(trials: int, seed: int, limit_s: float) -> Run:
    """Tune both operators at once with TVM; what is not done in `limit_s` is stopped, with nothing tuned."""
    began = time.monotonic()
    tuned = {}
    with fleet_of_tvm() as tracker:
        ready_s = time.monotonic() - began
        processes = {name: _peer(name, trials, tracker, seed) for name in OPERATORS}
        try:
            for name, process in processes.items():
                left_s = max(0.0, began + limit_s - time.monotonic())
                tuned[name] = _of_peer(process.communicate(timeout=left_s)[0])
        except subprocess.TimeoutExpired:
            tuned.clear()
        finally:
            for process in processes.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # its builders as well
                process.wait()
    return Run(time.monotonic() - began, ready_s, tuned)


def _peer(name: str, trials: int, tracker: int, seed: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "peer_tvm.py", name, str(trials), target(), str(tracker), str(seed)]
    return subprocess.Popen(on(HUB_CORE, command), stdout=subprocess.PIPE, cwd=HERE, start_new_session=True)


def _of_peer(output: bytes) -> Tuned:
    found = json.loads(output.splitlines()[-1])
    winner = Winner(found.pop("workload"), found.pop("trace"), found.pop("target"))
    timers = found.pop("stages")
    stages = {
        stage: sum(seconds for name, seconds in timers.items() if name.startswith(timer))
        for stage, timer in PEER_STAGES.items()
    }
    stages["start-up and the rest"] = found["ended_s"] - sum(stages.values())
    return Tuned(winner=winner, stages=stages, **found)


def resonator_at_once(trials: int, seed: int) -> Run:
    """Have a hub tune both operators, submitted at once; start-up counts."""
    return _resonator(trials, seed, at_once=True)


def resonator_in_turn(trials: int, seed: int) -> Run:
    """Have a hub tune one operator after the other.

    A job's time begins with its submission, that of the first with the start of the hub.
    """
    return _resonator(trials, seed, at_once=False)


def _resonator(trials: int, seed: int, *, at_once: bool) -> Run:
    began, clock = time.monotonic(), time.time()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        starts = dict.fromkeys(OPERATORS, clock)
        with hub(folder) as broker, agent(folder, broker):
            asyncio.run(await_hub(broker))
            ready_s = time.monotonic() - began
            if at_once:
                _await([_submit(folder, name, broker, trials, seed) for name in OPERATORS])
            else:
                for number, name in enumerate(OPERATORS):
                    if number:
                        starts[name] = time.time()
                    _await([_submit(folder, name, broker, trials, seed)])
            makespan_s = time.monotonic() - began
        print(f"Resonator, seed {seed}: both done {makespan_s:.0f} s after the start", flush=True)
        return Run(
            makespan_s, ready_s, {name: _of_hub(folder / "hub", name, starts[name]) for name in OPERATORS}
        )


def _submit(folder: Path, name: str, broker: str, trials: int, seed: int) -> subprocess.Popen[bytes]:
    """Submit one operator and watch it."""
    (folder / f"{name}.onnx").write_bytes(model(name))
    spec = {
        "model": {"onnx": f"{name}.onnx"},
        "target": {"kind": "cpu"},
        "budget": {"trials": trials},
        "measure": {"number": 3, "repeat": 1, "min_repeat_ms": 100},
        "seed": seed,
    }
    job = folder / f"{name}.yaml"
    job.write_text(json.dumps({"metadata": {"name": name}, "spec": spec}))
    command = resonator("submit", str(job), "--broker", broker, "--wait", "--json")
    return subprocess.Popen(on(HUB_CORE, command), stdout=subprocess.PIPE)


def _await(jobs: list[subprocess.Popen[bytes]]) -> None:
    for job in jobs:
        last = json.loads(job.communicate(timeout=JOB_LIMIT_S)[0].splitlines()[-1])
        assert last["state"] == "succeeded", last


def _of_hub(state: Path, name: str, start: float) -> Tuned:
    """Read an operator's records from a hub's state; its job began at `start`, seconds since the epoch."""
    columns = "job, at, latency_s, raced, workload, trace, target"
    query = f"SELECT {columns} FROM records WHERE job LIKE ? || '-%' ORDER BY at"
    with sqlite3.connect(state / JOURNAL) as database:
        rows = database.execute(query, [name]).fetchall()
    job = rows[0][0]
    timed = [row for row in rows if row[2] is not None and not row[3]]
    curve: Curve = []
    for _, at, latency_s, *_ in timed:
        curve.append((at - start, min(latency_s, curve[-1][1] if curve else latency_s)))
    *_, workload, trace, compiled_for = min(timed, key=lambda row: row[2])
    blobs = BlobStore(state / "blobs")
    winner = Winner(_text(blobs, workload), _text(blobs, trace), compiled_for)
    return Tuned(rows[-1][1] - start, len(rows), curve, winner, _stages(state, job))


def _stages(state: Path, job: str) -> dict[str, float]:
    """Return the seconds that a job's stages took, from the hub's journal."""
    database = Database.read(state / JOURNAL)
    found: dict[str, float] = {}
    for span in spans(Journal(database).events(), JobId(job)):
        found[span.stage] = found.get(span.stage, 0.0) + span.end - span.start
    database.close()
    return found


def _text(blobs: BlobStore, digest: str) -> str:
    return b64encode(blobs.get(digest)).decode()
