"""Snapshots in use: a start folds what came after the latest one, and what nobody needs is forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from resonator.errors import InputInvalid
from resonator.ids import JobId
from resonator.messages import JobState
from resonator_hub import audit, replay
from resonator_hub.database import Database, sqlite_url
from resonator_hub.inbox import Clock, Inbox
from resonator_hub.journal import Journal, JournalUnreadable
from resonator_hub.keeper import WORTHWHILE, Keeper
from resonator_hub.rules import Rules, began
from resonator_hub.runtime import Runtime
from resonator_hub.scheduler import Scheduler, commands, events
from resonator_hub.snapshots import DAY_S, Moment, Snapshots, needed
from resonator_hub.tables import EVENTS, SNAPSHOTS
from simulation.kept import played

RULES = Rules("load_aware", batch=16, window_s=60.0)
EVERY = 200
WEEK_S = 7 * DAY_S


PLAYED = played(10, apart_s=DAY_S)


class Life:
    """One life of a hub without a bus: what it knows, and what it was told to remember."""

    def __init__(self, folder: Path, *, every: int = EVERY, keep_s: float = WEEK_S) -> None:
        self.database = Database.open(sqlite_url(folder / "hub.db"))
        self.journal = Journal(self.database)
        self.snapshots = Snapshots(self.database)
        self.scheduler = RULES.scheduler()
        self.pushed: list[commands.Profile] = []
        self.ended: list[JobId] = []
        self.keeper = Keeper(
            self.journal, self.snapshots, self.scheduler, lambda: self.pushed, every=every, keep_s=keep_s
        )
        self.inbox = Inbox(Clock(wall=lambda: 0.0, steady=lambda: 0.0))
        self.runtime = Runtime(
            self.inbox,
            self.journal,
            self.scheduler,
            acts={},
            works={},
            recall={commands.Profile: self.pushed.append, commands.Report: self._forget},
            keeper=self.keeper,
        )

    def _forget(self, command: commands.Report) -> None:
        if command.ended:
            self.ended.append(command.job)
            self.pushed[:] = [push for push in self.pushed if push.job != command.job]

    def plays(self, past: list[events.Event]) -> None:
        """Take events as the runtime does, some at once."""
        for begin in range(0, len(past), 50):
            some = past[begin : begin + 50]
            seq = self.journal.append_all([(event, None) for event in some])
            for command in itertools.chain.from_iterable(map(self.scheduler.step, some)):
                if isinstance(command, commands.Profile):
                    self.pushed.append(command)
                elif isinstance(command, commands.Report):
                    self._forget(command)
            self.keeper.count(len(some), seq, some[-1].at)

    def forgets(self) -> int:
        """Forget what need not be kept; return how many events."""
        return sum(self.keeper.forget())

    def ends(self) -> None:
        self.database.close()


@contextlib.contextmanager
def life(folder: Path, *, every: int = EVERY, keep_s: float = WEEK_S) -> Iterator[Life]:
    one = Life(folder, every=every, keep_s=keep_s)
    try:
        yield one
    finally:
        one.ends()


@contextlib.asynccontextmanager
async def running(one: Life) -> AsyncIterator[None]:
    one.runtime.restore()
    task = asyncio.ensure_future(one.runtime.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def same(one: Scheduler, other: Scheduler) -> bool:
    return one.save() == other.save() and list(one.ended()) == list(other.ended())


def test_a_killed_hub_folds_what_came_after_its_latest_snapshot(tmp_path: Path) -> None:
    # Given a hub killed while a kernel was measured
    half = next(n for n, event in enumerate(PLAYED) if getattr(event, "candidate", "") == "job6/t1/c9")
    with life(tmp_path) as first:
        first.plays(PLAYED[:half])
        asked = list(first.pushed)
        assert asked
        before = first.scheduler
    # When it starts again
    with life(tmp_path) as second:
        folded = second.runtime.restore()
        # Then
        assert half > 3 * EVERY
        assert folded < EVERY
        assert same(second.scheduler, before)
        assert sorted(map(repr, second.pushed)) == sorted(map(repr, asked))
        assert second.ended == [f"job{number}" for number in range(6)]
        # And what comes next is as it would have been
        second.plays(PLAYED[half:])
        undisturbed = RULES.scheduler()
        for event in PLAYED:
            undisturbed.step(event)
        assert same(second.scheduler, undisturbed)


def test_a_start_that_folded_much_is_the_last_that_does(tmp_path: Path) -> None:
    with life(tmp_path, every=10**9) as first:
        first.plays(PLAYED)
    with life(tmp_path, every=10**9) as second:
        assert second.runtime.restore() == len(PLAYED)
    with life(tmp_path, every=10**9) as third:
        assert third.runtime.restore() == 0
        assert third.scheduler.status(JobId("job3")).state is JobState.SUCCEEDED


async def test_a_hub_that_is_stopped_leaves_nothing_to_fold(tmp_path: Path) -> None:
    with life(tmp_path, every=10**9) as first:
        async with running(first):
            await asyncio.gather(*(first.inbox.post(events.Tick(0.0)) for _ in range(WORTHWHILE)))
    with life(tmp_path) as second:
        assert second.runtime.restore() == 0


async def test_a_hub_takes_snapshots_while_it_runs_and_forgets_what_is_old(tmp_path: Path) -> None:
    # Given a hub with a past
    with life(tmp_path) as first:
        first.plays(PLAYED)
    with life(tmp_path, every=50, keep_s=DAY_S) as second:
        async with running(second):
            # When it goes on
            for _ in range(60):
                await second.inbox.post(events.Tick(0.0))
            while next(second.journal.events((events.Measured,))).at < 5 * DAY_S:
                await asyncio.sleep(0)
    # Then
    with life(tmp_path) as third:
        assert third.runtime.restore() < 50


def test_what_was_not_recorded_is_made_up_for_by_a_fold(tmp_path: Path) -> None:
    # Given a hub that could not keep a record, on a full disk
    with life(tmp_path) as first:
        first.keeper.distrust()
        first.plays(PLAYED)
        first.keeper.settle()
    # Then no snapshot hides it
    with life(tmp_path) as second:
        assert second.runtime.restore() == len(PLAYED)


def test_deeds_and_rules_and_the_last_days_are_never_forgotten(tmp_path: Path) -> None:
    # Given
    with life(tmp_path) as one:
        one.plays(PLAYED)
        deeds = list(audit.entries(tmp_path))
        latest = one.journal.last_at()
        # When
        forgotten = one.forgets()
        # Then
        assert list(audit.entries(tmp_path)) == deeds
        assert len(deeds) == 10
        assert began(one.journal) == RULES
        assert one.journal.length() == len(PLAYED)
        kept = list(one.journal.events())
        assert len(kept) == len(PLAYED) - forgotten
        recent = [event for event in PLAYED if event.at > latest - WEEK_S]
        assert kept[-len(recent) :] == recent
        assert len(PLAYED) / 8 < forgotten < len(PLAYED) - len(recent) + 11
        assert one.forgets() == 0
    # And the journal of a hub that slept for a year goes on counting where it was
    with life(tmp_path, keep_s=0.0, every=1) as much_later:
        much_later.runtime.restore()
        much_later.plays([events.Tick(PLAYED[-1].at + 400 * DAY_S)])
        much_later.forgets()
        assert much_later.journal.length() == len(PLAYED) + 1
        assert much_later.journal.append(events.Tick(PLAYED[-1].at + 401 * DAY_S)) == len(PLAYED) + 2


def test_a_replay_begins_where_the_journal_does(tmp_path: Path) -> None:
    # Given
    with life(tmp_path) as one:
        one.plays(PLAYED)
        whole = replay.fold(tmp_path)
        one.forgets()
        # When
        folded = replay.fold(tmp_path)
        # Then recent jobs are told of in full, and old ones by how they ended
        assert folded.events < whole.events
        assert folded.refused == whole.refused == []
        assert folded.jobs() == whole.jobs()
        assert folded.devices() == whole.devices()
        assert folded.story("job9") == whole.story("job9")
        assert folded.story("job9/t0") == whole.story("job9/t0")
        assert same(folded.scheduler, one.scheduler)
        with pytest.raises(InputInvalid, match=r"which begins at 1970-01-0\d, tells nothing of 'job0'"):
            folded.story("job0")


def test_a_journal_from_before_there_were_snapshots_is_told_from_its_beginning(tmp_path: Path) -> None:
    with life(tmp_path) as one:
        one.plays(PLAYED)
        with one.database.transaction() as connection:
            connection.exec_driver_sql("DROP TABLE snapshots")
    assert replay.fold(tmp_path).events == len(PLAYED)


def damage(database: Database, *numbers: int) -> None:
    with database.transaction() as connection:
        connection.execute(update(SNAPSHOTS).where(SNAPSHOTS.c.seq.in_(numbers)).values(body=b"\xc1"))


def taken(database: Database) -> list[int]:
    with database.transaction() as connection:
        return list(connection.execute(select(SNAPSHOTS.c.seq).order_by(SNAPSHOTS.c.seq)).scalars())


def test_an_earlier_snapshot_stands_in_for_one_that_cannot_be_read(tmp_path: Path) -> None:
    with life(tmp_path) as first:
        first.plays(PLAYED)
        first.forgets()
        *_, spare, last = taken(first.database)
        damage(first.database, last)
    with life(tmp_path) as second:
        assert second.runtime.restore() == len(PLAYED) - spare
        assert same(second.scheduler, first.scheduler)
        second.plays([events.Tick(PLAYED[-1].at + n) for n in range(EVERY)])
    with life(tmp_path) as third:
        assert third.runtime.restore() < EVERY
        assert list(third.scheduler.ended()) == list(first.scheduler.ended())


def test_without_a_snapshot_all_is_folded_or_what_is_wrong_is_said(tmp_path: Path) -> None:
    # Given a hub none of whose snapshots can be read
    with life(tmp_path) as first:
        first.plays(PLAYED)
        damage(first.database, *taken(first.database))
    # When no event is forgotten, then they are enough
    with life(tmp_path) as second:
        assert second.runtime.restore() == len(PLAYED)
        assert same(second.scheduler, first.scheduler)
        # When some are
        assert second.forgets()
        damage(second.database, *taken(second.database))
    # Then
    with life(tmp_path) as third, pytest.raises(JournalUnreadable, match=r"none of \d+ can be read"):
        third.runtime.restore()


def test_a_job_that_ended_but_is_not_kept_makes_a_snapshot_unreadable(tmp_path: Path) -> None:
    with life(tmp_path) as first:
        first.plays(PLAYED)
        with first.database.transaction() as connection:
            connection.exec_driver_sql("DELETE FROM ended_jobs WHERE number = 3")
    with life(tmp_path) as second:
        assert second.runtime.restore() > EVERY


def test_a_snapshot_that_cannot_be_written_does_not_end_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with life(tmp_path) as one:

        def full(_moment: Moment, _scheduler: Scheduler) -> None:
            raise OSError("no space left on device")

        monkeypatch.setattr(one.snapshots, "keep", full)
        one.plays(PLAYED[: EVERY + 50])
        assert one.journal.length() == EVERY + 50
        assert taken(one.database) == []


def test_of_the_snapshots_one_a_day_is_kept_and_the_latest() -> None:
    hourly = [(hour, hour * 3600.0) for hour in range(24 * 10 + 1)]
    # When nothing is old enough yet, they begin where they began
    assert needed(hourly, -1.0) == [*range(0, 240, 24), 239, 240]
    assert needed([], 0.0) == []
    # When the last three days are to be kept, in which the journal begins before their first event
    kept = needed(hourly, 7 * DAY_S + 60.0)
    # Then
    assert kept == [168, 192, 216, 239, 240]
    assert needed([(seq, seq * 3600.0) for seq in kept], 7 * DAY_S + 60.0) == kept
    assert needed(hourly, 1e9) == [240]


def test_kinds_of_events_are_found_by_an_index(tmp_path: Path) -> None:
    with life(tmp_path) as one:
        one.plays(PLAYED[:200])
        query = select(EVENTS).where(EVENTS.c.name == "Tick", EVENTS.c.seq > 5).order_by(EVENTS.c.seq)
        with one.database.transaction() as connection:
            sql = str(query.compile(connection, compile_kwargs={"literal_binds": True}))
            plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}").all())
        assert "events_of_a_kind (name=? AND seq>?)" in plan
        assert "TEMP B-TREE" not in plan
        wanted = (events.WindowOpened, events.JobSubmitted, events.Measured)
        assert list(one.journal.events(wanted)) == [one for one in PLAYED[:200] if isinstance(one, wanted)]
