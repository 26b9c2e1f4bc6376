"""Resonator against TVM's MetaSchedule over its RPC tracker: two jobs of equal trials, over several seeds.

Search and build have core 0, the device core 1, on both sides. Three rows: the makespan of both jobs; the
time to the peer's final latency; the final latency, for which all winners are timed again, idle and
alternating. The curves become curves.svg. `--seeds 1..5` says which; QUICK=1 makes one seed, 32 trials a job
instead of 64, and leaves out Resonator's jobs in turn and the peer's at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from statistics import geometric_mean, median

import curves
from duel import HERE, Run, Tuned, kept, resonator_at_once, resonator_in_turn, tvm_at_once, tvm_in_turn
from figures import Figure, keep, quick
from fleets import need_two_cores
from operators import OPERATORS
from ratios import geometric_ratio
from rematch import rematch

TRIALS = 32 if quick() else 64
PATIENCE = 2.0
"""How many times the peer's sequential makespan its concurrent one may take before it is ended."""
PEER, OURS, IN_TURN = "TVM, one after the other", "Resonator, both at once", "Resonator, one after the other"
Runs = Mapping[str, Sequence[Run]]
"""A run for each seed, by side."""


def main() -> None:
    need_two_cores()
    seeds = _seeds()
    runs = {
        PEER: [kept("tvm", TRIALS, seed, tvm_in_turn) for seed in seeds],
        OURS: [kept("resonator-at-once", TRIALS, seed, resonator_at_once) for seed in seeds],
    }
    if not quick():
        runs[IN_TURN] = [kept("resonator-in-turn", TRIALS, seed, resonator_in_turn) for seed in seeds]
    figures = [*makespans(runs), *times_to_quality(runs), *final_latencies(runs), *stages(runs)]
    draw(runs)
    keep("makespan", figures)


def _seeds() -> range:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="1..1" if quick() else "1..5", metavar="FIRST..LAST")
    first, _, last = parser.parse_args().seeds.partition("..")
    return range(int(first), int(last or first) + 1)


def makespans(runs: Runs) -> list[Figure]:
    """Return the makespan of every side, and its ratio to the peer's."""
    spans = {side: median(run.makespan_s for run in made) for side, made in runs.items()}
    figures = []
    for side, span in spans.items():
        trials = geometric_mean(run.tuned[name].trials for run in runs[side] for name in OPERATORS)
        note = f"{_seeds_of(runs[side])}; {trials:.0f} trials a job were measured"
        figures.append(Figure(f"{side}: makespan, {TRIALS} trials a job", span, "s", note=note))
    ready = median(run.ready_s for run in runs[OURS])
    figures.append(Figure("Resonator: of which until a job can be submitted", ready, "s"))
    if not quick():
        figures.append(_peer_at_once(spans[PEER]))
    ours = [Figure(f"makespan: {side} / TVM", span / spans[PEER], "x", 0.2) for side, span in spans.items()]
    return figures + ours[1:]


def _seeds_of(runs: Sequence[Run]) -> str:
    return "one seed" if len(runs) == 1 else f"median of {len(runs)} seeds"


def _peer_at_once(in_turn_s: float) -> Figure:
    run = kept("tvm-at-once", TRIALS, 1, partial(tvm_at_once, limit_s=PATIENCE * in_turn_s))
    note = "one run" if run.tuned else f"did not end in {run.makespan_s:.0f} s and was stopped"
    return Figure(f"TVM, both at once: makespan, {TRIALS} trials a job", run.makespan_s, "s", note=note)


def times_to_quality(runs: Runs) -> list[Figure]:
    """Return how long ours takes to the peer's final latency, as a share of the time that the peer took."""
    figures = []
    if IN_TURN in runs:
        for name in OPERATORS:
            pairs = _pairs(runs[IN_TURN], runs[PEER], name)
            figures.append(_quality(f"{name}: time to TVM's final latency, job alone", pairs))
        pairs = [pair for name in OPERATORS for pair in _pairs(runs[IN_TURN], runs[PEER], name)]
        figures.append(_quality("time to TVM's final latency, jobs in turn / TVM", pairs, goal=1 / 6))
    pairs = []
    for ours, peer in product(runs[OURS], runs[PEER]):
        reached = [ours.tuned[name].reached(peer.tuned[name].latency_s) for name in OPERATORS]
        known = [at for at in reached if at is not None]
        all_s = max(known) if len(known) == len(reached) else None
        pairs.append((all_s, ours.makespan_s, peer.makespan_s))
    return [
        *figures,
        _quality("time to both of TVM's final latencies, jobs at once / TVM", pairs, goal=1 / 6),
    ]


Pair = tuple[float | None, float, float]
"""When ours reached the peer's final latency, if it did; our whole time; the peer's whole time."""


def _pairs(ours: Sequence[Run], peers: Sequence[Run], name: str) -> list[Pair]:
    """Hold each of our runs against each of the peer's: their seeds have nothing to do with each other."""

    def pair(own: Tuned, other: Tuned) -> Pair:
        return own.reached(other.latency_s), own.ended_s, other.ended_s

    return [pair(own.tuned[name], other.tuned[name]) for own, other in product(ours, peers)]


def _quality(name: str, pairs: Sequence[Pair], goal: float | None = None) -> Figure:
    missed = sum(at is None for at, _, _ in pairs)
    ratio = geometric_mean([(whole_s if at is None else at) / peer_s for at, whole_s, peer_s in pairs])
    note = f"never reached in {missed} of {len(pairs)} pairs of runs, which count with our whole time"
    return Figure(name, ratio, "x", goal, row="time to quality", note=note if missed else "")


def final_latencies(runs: Runs) -> list[Figure]:
    """Return the winners' latencies, timed again, and their geometric mean ratio to the peer's."""
    keys = [(side, number, name) for side in runs for number in range(len(runs[side])) for name in OPERATORS]
    print(f"timing {len(keys)} winners again, alternating", flush=True)
    seconds = rematch([runs[side][number].tuned[name].winner for side, number, name in keys])
    found: dict[str, dict[str, list[float]]] = {side: {name: [] for name in OPERATORS} for side in runs}
    for (side, _, name), latency_s in zip(keys, seconds, strict=True):
        found[side][name].append(latency_s)
    figures = []
    for name, side in product(OPERATORS, runs):
        values = [value * 1e6 for value in found[side][name]]
        note = "seeds: " + ", ".join(f"{value:.0f}" for value in values)
        figures.append(
            Figure(f"{name}: {side}", geometric_mean(values), "us", row="final latency", note=note)
        )
    for side in list(runs)[1:]:
        ratio = geometric_ratio(found[side], found[PEER])
        note = "one seed a side, which says little"
        if len(runs[side]) > 1:
            sample = f"{len(runs[side])} seeds a side"
            note = f"95 % confidence interval {ratio.low:.2f} to {ratio.high:.2f}, {sample}"
        name = f"final latency: {side} / TVM"
        figures.append(Figure(name, ratio.mean, "x", 1.0, row="final latency", note=note))
    return figures


def stages(runs: Runs) -> list[Figure]:
    """Return where the time of both jobs went, stage by stage: median seconds over the seeds."""
    figures = []
    for side in (PEER, OURS):
        tables = [[run.tuned[name].stages for name in OPERATORS] for run in runs[side]]
        for stage in dict.fromkeys(stage for table in tables for one in table for stage in one):
            spent = median(sum(one.get(stage, 0.0) for one in table) for table in tables)
            figures.append(Figure(f"{side}: {stage}", spent, "s", row="stages"))
    return figures


def draw(runs: Runs) -> None:
    """Draw the curves of jobs that had the machine to themselves, where there are such, as curves.svg."""
    ours = IN_TURN if IN_TURN in runs else OURS
    panels = {
        name: {side: [run.tuned[name].curve for run in runs[side]] for side in (PEER, ours)}
        for name in OPERATORS
    }
    title = f"Best latency so far: {TRIALS} trials, {_seeds_of(runs[PEER])}"
    (HERE / "curves.svg").write_text(curves.draw(panels, title))


if __name__ == "__main__":
    main()
