"""The cost model's update after 1,000 and after 20,000 records, and how well it ranks what it has not seen.

Real candidates of four operators are searched, built and measured once; a third of them is held out. From the
rest, and from 36 made-up tasks, which are the real ones with shifted features, records are drawn with seeded
noise: first of two real operators, then of the made-up ones, job by job, last of the other two real ones.
QUICK=1 measures fewer candidates.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import fleets
import numpy as np
from figures import Figure, keep, quick
from operators import convolution
from rig import device, samples_of, tune

from resonator_hub import cost_model, warm
from resonator_hub.cost_model import Sample, boosted, memory
from resonator_hub.cost_model.features import unpack_features
from resonator_hub.frontends.onnx import extract

OLD = {"3x3 64->64 @56": (64, 64, 3, 56), "1x1 256->64 @56": (256, 64, 1, 56)}
NEW = {"3x3 128->128 @28": (128, 128, 3, 28), "1x1 256->128 @28": (256, 128, 1, 28)}
TRIALS = 32 if quick() else 96
FEW, MANY, ROUND = 1_000, 20_000, 16
MADE_UP, JOBS = 36, 6
"""How many tasks are made up, and in how many jobs they came one after the other."""
EACH = 150
"""How many records each real operator has."""
REPEATS = 5


def main() -> None:
    fleets.need_two_cores()
    os.sched_setaffinity(0, {int(fleets.HUB_CORE)})
    warm.load()
    known, held_out = measured()
    records = history(known)
    sizes = (FEW, 2_000, 5_000, MANY)
    models = {size: cost_model.update(records[-size:], None) for size in sizes}
    took = update_s(models, records[-ROUND:])
    for size in sizes:
        parts = len(cost_model.trees(models[size])), len(models[size])
        print(f"{size} records: update {took[size] * 1e3:.0f} ms, trees {parts[0]}, all {parts[1]} bytes")
    keep(
        "cost_model",
        [
            *rank(records, held_out),
            Figure("bytes that travel to a search", len(cost_model.trees(models[MANY])), "bytes"),
            Figure("bytes that travel to an update", len(models[MANY]), "bytes"),
            Figure(f"update with {ROUND} samples after {FEW} records", took[FEW] * 1e3, "ms"),
            Figure(f"update with {ROUND} samples after {MANY} records", took[MANY] * 1e3, "ms"),
            Figure(f"update after {MANY} records / after {FEW}", took[MANY] / took[FEW], "x", goal=1.5),
        ],
    )


def measured() -> tuple[list[Sample], list[Sample]]:
    """Return samples of real kernels: those to learn from, and those held out."""
    target, chance = fleets.target(), np.random.default_rng(1)
    known: list[Sample] = []
    held_out: list[Sample] = []
    with device() as box:
        for seed, (name, shape) in enumerate((OLD | NEW).items()):
            work = extract(convolution(*shape), {}, target).tasks[0]
            trials, _ = tune(work, target, box, TRIALS, seed)
            for sample in samples_of(trials, name):
                (held_out if chance.random() < 1 / 3 else known).append(sample)
            print(f"{name}: {len(trials)} kernels measured", flush=True)
    return known, held_out


def history(known: Sequence[Sample]) -> list[Sample]:
    """Return `MANY` records, oldest first."""
    chance = np.random.default_rng(2)
    spread = np.std([rows_sum(sample) for sample in known], axis=0)
    of = {name: [sample for sample in known if sample.group == name] for name in OLD | NEW}
    rest = (MANY - EACH * len(of)) // MADE_UP
    made_up = []
    for number in range(MADE_UP):
        shift, slower = chance.normal(0, 0.3, spread.shape) * spread, float(np.exp(chance.normal()))
        real = list(of.values())[number % len(of)]
        drawn = noisy(real, rest, shift, 0.05 * spread, 0.05, chance)
        made_up.append([replace(one, latency_s=slower * one.latency_s, group=f"{number}") for one in drawn])
    still = np.zeros_like(spread)
    again = {name: noisy(real, EACH, still, 0.02 * spread, 0.03, chance) for name, real in of.items()}
    records = shuffled([again[name] for name in OLD], chance)
    for first in range(0, MADE_UP, MADE_UP // JOBS):
        records += shuffled(made_up[first : first + MADE_UP // JOBS], chance)
    return records + shuffled([again[name] for name in NEW], chance)


def noisy(
    real: Sequence[Sample],
    count: int,
    shift: np.ndarray,
    spread: np.ndarray,
    jitter: float,
    chance: np.random.Generator,
) -> list[Sample]:
    """Draw `count` samples: features with shift and noise of this spread, latencies with jitter."""
    made = []
    for pick in chance.integers(0, len(real), count):
        row = rows_sum(real[pick]) + shift + chance.normal(0, 1, spread.shape) * spread
        latency_s = real[pick].latency_s * float(np.exp(chance.normal(0, jitter)))
        packed = cost_model.pack_features(row[np.newaxis].astype("float32"))
        made.append(Sample(packed, latency_s, real[pick].group))
    return made


def rows_sum(sample: Sample) -> np.ndarray:
    """Return the features that the model learns from."""
    total: np.ndarray = unpack_features(sample.features).sum(axis=0)
    return total


def shuffled(groups: Sequence[Sequence[Sample]], chance: np.random.Generator) -> list[Sample]:
    """Return samples of several tasks that were tuned at the same time."""
    flat = [sample for group in groups for sample in group]
    return [flat[index] for index in chance.permutation(len(flat))]


def update_s(models: dict[int, bytes], samples: Sequence[Sample]) -> dict[int, float]:
    """Return the median seconds of an update of each model, measured alternately."""
    took: dict[int, list[float]] = {size: [] for size in models}
    for _ in range(REPEATS):
        for size, model in models.items():
            began = time.perf_counter()
            cost_model.update(samples, model)
            took[size].append(time.perf_counter() - began)
    return {size: median(times) for size, times in took.items()}


@dataclass(frozen=True)
class Way:
    """A way to learn: from records to a model."""

    name: str
    learn: Callable[[Sequence[Sample]], bytes]


def rank(records: Sequence[Sample], held_out: Sequence[Sample]) -> list[Figure]:
    """Return the share of the pairs of held-out kernels in order, for each way to learn."""
    ways = (
        Way("trees on all records", lambda samples: with_memory(len(samples), samples)),
        Way(f"trees on a memory of {memory.LIMIT}, balanced (ours)", in_rounds),
        Way(
            f"trees on the last {memory.LIMIT}",
            lambda samples: cost_model.update(samples[-memory.LIMIT :], None),
        ),
        Way("a tree added for each round", extension_only),
    )
    figures = []
    for way in ways:
        began = time.perf_counter()
        model = way.learn(records)
        took = time.perf_counter() - began
        for when, names in (("last", NEW), ("first", OLD)):
            share = float(
                np.mean([in_order(model, [one for one in held_out if one.group == name]) for name in names])
            )
            figures.append(Figure(f"pairs in order, operators tuned {when}: {way.name}", 100 * share, "%"))
        print(f"{way.name}: learnt {len(records)} records in {took:.1f} s", flush=True)
    return figures


def with_memory(limit: int, samples: Sequence[Sample]) -> bytes:
    """Learn with a memory of another size than the product's."""
    usual, memory.LIMIT = memory.LIMIT, limit
    try:
        return cost_model.update(samples, None)
    finally:
        memory.LIMIT = usual


def in_rounds(samples: Sequence[Sample]) -> bytes:
    """Learn as the hub does, in rounds of a thousand here, since only the last trees are looked at."""
    model = None
    for start in range(0, len(samples), 1000):
        model = cost_model.update(samples[start : start + 1000], model)
    assert model is not None
    return model


def extension_only(samples: Sequence[Sample]) -> bytes:
    """Learn the first thousand, then grow one more tree on the samples of each round alone."""
    import msgpack
    import xgboost

    first = cost_model.update(samples[:1000], None)
    booster = boosted._loaded(first).copy()
    best_s: dict[str, float] = {}
    for sample in samples[:1000]:
        best_s[sample.group] = min(sample.latency_s, best_s.get(sample.group, sample.latency_s))
    for start in range(1000, len(samples), ROUND):
        batch = samples[start : start + ROUND]
        for sample in batch:
            best_s[sample.group] = min(sample.latency_s, best_s.get(sample.group, sample.latency_s))
        scores = np.log([best_s[one.group] / one.latency_s for one in batch])
        matrix = xgboost.DMatrix(memory.rows_of([one.features for one in batch]), scores, nthread=1)
        booster = xgboost.train(boosted.PARAMETERS, matrix, num_boost_round=1, xgb_model=booster)
    return bytes(msgpack.packb(bytes(booster.save_raw("ubj"))))


def in_order(model: bytes, held_out: Sequence[Sample]) -> float:
    """Return the share of pairs, of more than 5 % difference, in which the faster kernel scores higher."""
    scores = cost_model.predict(model, [sample.features for sample in held_out])
    pairs = [
        scores[fast] > scores[slow]
        for fast in range(len(scores))
        for slow in range(len(scores))
        if held_out[fast].latency_s * 1.05 < held_out[slow].latency_s
    ]
    return sum(pairs) / len(pairs)


if __name__ == "__main__":
    main()
