"""Whole models, tuned, against ONNX Runtime on the same cores, at one thread and two, batch 1.

Both sides run in processes of their own, pinned to the same cores, and take turns. The models were tuned
before by tune_models.py; here they are only compiled from benchmarks/records. Beside each latency stands the
floor: the multiplications and additions of the graph's convolutions and matrix products, divided by what
the cores were measured to do at most.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peak
from best_records import chosen, target
from figures import Figure, keep, quick
from models import MODELS, model, operations
from opponents import Opponent

from resonator import bundle
from resonator.accuracy import worst_error
from resonator_hub import warm
from resonator_hub.artifacts import Best, compile_model, pack_arrays, reference, unpack_arrays
from resonator_hub.frontends.onnx import extract

CORES = {1: (1,), 2: (0, 1)}
"""The cores of both sides, by the number of threads."""
TURNS = 3 if quick() else 7
SPAN_S = 0.5 if quick() else 1.5
TOLERANCE = 1e-3


def main() -> None:
    warm.load()
    names = sys.argv[1].split(",") if len(sys.argv) > 1 else MODELS
    figures, ratios = [], []
    for threads, cores in CORES.items():
        most = peak.measured(cores)
        figures.append(Figure(f"peak of {threads} cores", most / 1e9, "GFLOP/s"))
        for name in names:
            ours, theirs, flops = compared(name, threads)
            ratios.append(ours / theirs)
            label = f"{name}, {threads} threads"
            figures += [
                Figure(f"{label}: floor", flops / most * 1e3, "ms"),
                Figure(f"{label}: ONNX Runtime", theirs * 1e3, "ms"),
                Figure(f"{label}: Resonator", ours * 1e3, "ms"),
                Figure(f"{label}: Resonator / ONNX Runtime", ours / theirs, "x", goal=1.2),
            ]
            print(f"{label}: {ours * 1e3:.2f} ms, {ours / theirs:.2f} of ONNX Runtime's", flush=True)
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    figures.append(Figure("whole models, Resonator / ONNX Runtime, geometric mean", mean, "x", goal=0.9))
    keep("models", figures)


def compared(name: str, threads: int) -> tuple[float, float, float]:
    """Return the latency of both sides in seconds, and the model's floating-point operations."""
    source = model(name)
    tasks = extract(source, {}, target(threads)).tasks
    answers = reference(source, {}, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        files = {"resonator": Path(folder, "model.bundle"), "onnxruntime": Path(folder, "model.onnx")}
        inputs = Path(folder, "inputs.npz")
        files["resonator"].write_bytes(compiled(name, source, threads, chosen(tasks, threads)))
        files["onnxruntime"].write_bytes(source)
        inputs.write_bytes(pack_arrays(unpack_arrays(answers.inputs)))
        ours, theirs = duel(files, inputs, threads, unpack_arrays(answers.outputs))
    return ours, theirs, operations(source)


def compiled(name: str, source: bytes, threads: int, best: Sequence[Best]) -> bytes:
    """Return the model's bundle, with its operators by these records."""
    made = compile_model(source, {}, target(threads), best)
    manifest = bundle.Manifest(
        name=name, target=target(threads), inputs=made.inputs, outputs=made.outputs, records=made.tuned_tasks
    )
    return bundle.pack(made.library, manifest)


def duel(files: dict[str, Path], inputs: Path, threads: int, right: dict[str, Any]) -> tuple[float, float]:
    """Let both sides run in turn; return the median of each side's median latencies in seconds."""
    sides = {side: Opponent(side, file, inputs, CORES[threads]) for side, file in files.items()}
    try:
        for side, opponent in sides.items():
            error = worst_error(opponent.outputs(), right)
            if error > TOLERANCE:
                sys.exit(f"the outputs of {side} are wrong: relative error {error:.1e}")
        turns = [
            {side: statistics.median(one.latencies(SPAN_S)) for side, one in sides.items()}
            for _ in range(TURNS)
        ]
    finally:
        for opponent in sides.values():
            opponent.close()
    ours, theirs = (statistics.median(turn[side] for turn in turns) for side in ("resonator", "onnxruntime"))
    return ours, theirs


if __name__ == "__main__":
    main()
