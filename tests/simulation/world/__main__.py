"""`make simulate`: many worlds, one after the other; of the first that fails the shortest story is told."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence

from simulation.world.fleet import Outcome, run
from simulation.world.shrink import shrink, story

CHUNK = 10
NEWS_S = 10.0
"""How often progress is told."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the worlds that were asked for; return 1 if one fails."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many worlds")
    parser.add_argument("--first", type=int, default=1, help="the seed of the first")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes")
    parser.add_argument("--seed", type=int, help="this one alone, with its whole story")
    asked = parser.parse_args(arguments)
    if asked.seed is not None:
        return _replay(asked.seed)
    failed = _search(range(asked.first, asked.first + asked.seeds), asked.jobs)
    if failed is None:
        return 0
    print(f"seed {failed.seed} FAILS: {failed.violations[0]}\nleaving out what does not matter:")
    print(story(shrink(failed)))
    print(f"replay it with: make simulate SEED={failed.seed}")
    return 1


def _replay(seed: int) -> int:
    outcome = run(seed)
    for line in (*map(str, outcome.plan), "", *outcome.story):
        print(line)
    print(f"digest {outcome.digest}")
    if outcome.violations:
        print(story(shrink(outcome)))
    return 1 if outcome.violations else 0


def _search(seeds: range, jobs: int) -> Outcome | None:
    """Run worlds until one fails; return that one, or None."""
    began = told = time.perf_counter()
    done = kernels = messages = 0
    virtual_s = 0.0
    for outcome in _outcomes(seeds, jobs):
        done, kernels, messages = done + 1, kernels + outcome.runs, messages + outcome.messages
        virtual_s += outcome.lasted_s
        if outcome.violations:
            return outcome
        now = time.perf_counter()
        if now - told > NEWS_S or done == len(seeds):
            told = now
            print(
                f"{done} of {len(seeds)} fleets clean, {done / (now - began) * 60:.0f} a minute; "
                f"{virtual_s / 3600:.1f} h of virtual time, {messages} messages, {kernels} kernels",
                flush=True,
            )
    return None


def _outcomes(seeds: range, jobs: int) -> Iterator[Outcome]:
    if jobs == 1:
        yield from map(run, seeds)
        return
    # Each process is new after a while: what worlds leave behind does not add up.
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=50) as pool:
        yield from pool.imap_unordered(run, seeds, chunksize=CHUNK)


if __name__ == "__main__":
    sys.exit(main())
