"""A hub that ran for days keeps no more than its last ones, and starts as fast as one that is new."""

from __future__ import annotations

from pathlib import Path

from resonator_hub.journal import JOURNAL
from resonator_hub.snapshots import DAY_S
from simulation.kept import KeptFleet, restarted

EVERY = 500


def test_neither_the_start_nor_the_database_grows_with_the_days(tmp_path: Path) -> None:
    # Given a fleet with work all day long, whose events are kept for a day
    world = KeptFleet(tmp_path, boxes=6, jobs_a_day=6, trials=64, every=EVERY, keep_s=DAY_S)
    bytes_after = []
    # When
    for _ in range(10):
        world.plays(days=1)
        bytes_after.append((tmp_path / JOURNAL).stat().st_size)
    world.database.close()
    # Then a start folds what came after the latest snapshot
    assert world.events > 12 * EVERY
    scheduler, folded = restarted(tmp_path)
    assert folded <= EVERY + 200
    assert scheduler.save() == world.scheduler.save()
    assert scheduler.statuses(1000) == world.scheduler.statuses(1000)
    assert len(world.ended) > 50
    # And what was freed is used again
    assert bytes_after[-1] < 1.3 * bytes_after[4], bytes_after
