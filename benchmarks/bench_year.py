"""A hub that ran for a year: how large its journal is by then, and how long it takes to start.

The real scheduler, journal, snapshots and compaction on a simulated clock: 20 boxes, and 30 jobs of up to 128
trials a day. What is kept apart from the journal (records, jobs, blobs) is not counted. QUICK=1 plays 14 days
of which one is kept, DAYS=n so many instead of 365.
"""

from __future__ import annotations

import logging
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import structlog
from figures import Figure, keep, quick
from sqlalchemy import func, select

from resonator.ids import CandidateId, DeviceId, JobId
from resonator_hub.database import Database, sqlite_url
from resonator_hub.journal import JOURNAL, Journal
from resonator_hub.keeper import EVERY
from resonator_hub.scheduler import Scheduler
from resonator_hub.scheduler.commands import Profile
from resonator_hub.snapshots import DAY_S, Moment, Snapshots
from resonator_hub.tables import EVENTS

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from simulation.fleets import fleet
from simulation.kept import KeptFleet, restarted
from simulation.simulator import blob

BOXES, JOBS_A_DAY, TRIALS = 20, 30, 128
PUSHES = 20_000
"""Kernels that a large fleet was sent for jobs that go on: a hundred for each of 200 jobs."""
MB = 1e6


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    days = int(os.environ.get("DAYS", "14" if quick() else "365"))
    keep_days = 1 if quick() else 30
    with tempfile.TemporaryDirectory() as folder:
        large = Figure(
            "hub held up by a snapshot of 1000 boxes, 200 jobs",
            statistics.median(large_fleet_ms(Path(folder) / f"{run}.db") for run in range(3)),
            "ms",
            note=f"{PUSHES} kernels of theirs were pushed; one snapshot in {EVERY} events",
        )
        keep("year", [*figures(Path(folder), days, keep_days), large])


def figures(folder: Path, days: int, keep_days: int) -> list[Figure]:
    """Play some days, then start the hub anew."""
    world = KeptFleet(
        folder, boxes=BOXES, jobs_a_day=JOBS_A_DAY, trials=TRIALS, every=EVERY, keep_s=keep_days * DAY_S
    )
    stalls: list[float] = []
    timed(world, stalls)
    early_mb = play(world, folder, days)
    world.database.close()
    late_mb = size_mb(folder)
    began = time.perf_counter()
    scheduler, folded = restarted(folder)
    start_s = time.perf_counter() - began
    assert scheduler.statuses(100) == world.scheduler.statuses(100), "it knows what it knew"
    kept, fold_us = fold_cost(folder)
    ended, what = len(world.ended), f"{days} days"
    return [
        Figure(f"start after {what}", start_s, "s", goal=5.0, note=f"{folded} events folded"),
        Figure(
            f"start after {what} without snapshots",
            world.events * fold_us / 1e6,
            "s",
            note=f"{world.events} events at the {fold_us:.0f} us each that the kept ones took",
        ),
        Figure(
            f"journal after {what}",
            late_mb,
            "MB",
            note=f"{kept} of {world.events} events kept, the last {keep_days} days'; {ended} jobs have ended",
        ),
        Figure(f"journal after {what} / after {days // 3}", late_mb / early_mb, "x", goal=1.5),
        Figure("hub held up by a snapshot, at most", max(stalls) * 1e3, "ms", goal=100.0),
    ]


def large_fleet_ms(path: Path) -> float:
    """Return for how long a snapshot of a thousand boxes and two hundred jobs holds up its hub (ms)."""
    world = fleet(devices=1_000, jobs=200, slots=64)
    world.run(until=200.0)
    pushes = tuple(
        Profile(DeviceId(f"site/box{n}"), n, JobId("j"), CandidateId(f"j/t0/c{n}"), blob(f"{n}"), 1)
        for n in range(PUSHES)
    )
    database = Database.open(sqlite_url(path))
    began = time.perf_counter()
    Snapshots(database).keep(Moment(1, world.now, pushes), world.scheduler)
    took_ms = (time.perf_counter() - began) * 1e3
    database.close()
    return took_ms


def timed(world: KeptFleet, stalls: list[float]) -> None:
    """Note for how long each call of the keeper holds up its caller."""
    count = world.keeper.count

    def timing(events: int, seq: int, at: float) -> None:
        began = time.perf_counter()
        count(events, seq, at)
        stalls.append(time.perf_counter() - began)

    world.keeper.count = timing  # type: ignore[method-assign]


def play(world: KeptFleet, folder: Path, days: int) -> float:
    """Play so many days; return the size of the database (MB) after a third of them."""
    early_mb, began = 0.0, time.perf_counter()
    for day in range(1, days + 1):
        world.plays(days=1)
        if day == days // 3:
            early_mb = size_mb(folder)
        if day % max(1, days // 12) == 0:
            took_s = time.perf_counter() - began
            print(
                f"day {day}: {world.events} events, {len(world.ended)} jobs ended, {size_mb(folder):.0f} MB, "
                f"{took_s:.0f} s so far",
                flush=True,
            )
    return early_mb


def size_mb(folder: Path) -> float:
    """Return the size of the database with its log (MB)."""
    return sum(file.stat().st_size for file in folder.glob(f"{JOURNAL}*")) / MB


def fold_cost(folder: Path) -> tuple[int, float]:
    """Return how many events are kept, and what folding one of them takes (us): read, parsed and stepped."""
    database = Database.open(sqlite_url(folder / JOURNAL))
    scheduler, count = Scheduler(), 0
    moment = Snapshots(database).first(scheduler)
    began = time.perf_counter()
    for event in Journal(database).events(after=moment.seq):
        scheduler.step(event)
        count += 1
    took_s = time.perf_counter() - began
    with database.transaction() as connection:
        kept = int(connection.execute(select(func.count()).select_from(EVENTS)).scalar() or 0)
    database.close()
    return kept, took_s / max(1, count) * 1e6


if __name__ == "__main__":
    main()
