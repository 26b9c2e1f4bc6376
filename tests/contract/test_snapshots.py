"""Snapshots and what they let the journal forget, over every database a hub may keep them in."""

from __future__ import annotations

from sqlalchemy import select

from resonator_hub.database import Database
from resonator_hub.journal import Journal
from resonator_hub.keeper import Keeper
from resonator_hub.rules import Rules, began
from resonator_hub.scheduler import Scheduler, commands, events
from resonator_hub.snapshots import DAY_S, Snapshots
from resonator_hub.tables import ENDED_JOBS, SNAPSHOTS
from simulation.kept import played

EVERY = 300


PAST = played(8, apart_s=DAY_S / 4)


def live(database: Database, past: list[events.Event], keep_s: float = DAY_S) -> tuple[Scheduler, Keeper]:
    """Take events as a hub does; return its scheduler and what keeps it."""
    journal, scheduler = Journal(database), Scheduler()
    push = commands.Profile("lab/a", 1, "job0", "job0/t0/c0", "b" * 64, 9, race_s=0.5)  # type: ignore[arg-type]
    keeper = Keeper(journal, Snapshots(database), scheduler, lambda: [push], every=EVERY, keep_s=keep_s)
    for begin in range(0, len(PAST), 100):
        some = past[begin : begin + 100]
        seq = journal.append_all([(event, None) for event in some])
        for event in some:
            scheduler.step(event)
        keeper.count(len(some), seq, some[-1].at)
    return scheduler, keeper


def test_a_scheduler_is_restored_from_the_latest_snapshot_and_what_came_after(database: Database) -> None:
    # Given
    scheduler, _ = live(database, PAST)
    # When
    again = Scheduler()
    moment = Snapshots(database).latest(again)
    rest = list(Journal(database).events(after=moment.seq))
    for event in rest:
        again.step(event)
    # Then
    assert len(PAST) > 2 * EVERY
    assert rest == PAST[len(PAST) - len(rest) :]
    assert len(rest) < EVERY
    assert again.save() == scheduler.save()
    assert list(again.ended()) == list(scheduler.ended())
    assert [(push.candidate, push.race_s) for push in moment.asked] == [("job0/t0/c0", 0.5)]


def test_what_is_older_than_it_need_be_is_forgotten_but_for_deeds_and_rules(database: Database) -> None:
    # Given
    scheduler, keeper = live(database, PAST)
    journal = Journal(database)
    length = journal.length()
    # When
    forgotten = sum(keeper.forget())
    # Then
    assert forgotten > EVERY / 2
    assert len(list(journal.events())) == len(PAST) - forgotten
    submitted = (events.JobSubmitted,)
    assert list(journal.events(submitted)) == [event for event in PAST if isinstance(event, submitted)]
    assert began(journal) == Rules("load_aware", 16, 60.0)
    assert (journal.length(), journal.last_at()) == (length, PAST[-1].at)
    # And all that is left tells what all of it told
    first, latest = Scheduler(), Scheduler()
    for snapshots, one in ((Snapshots(database).first, first), (Snapshots(database).latest, latest)):
        for event in journal.events(after=snapshots(one).seq):
            one.step(event)
        assert one.save() == scheduler.save()


def test_each_job_that_ended_is_kept_once(database: Database) -> None:
    live(database, PAST)
    with database.transaction() as connection:
        jobs = list(connection.execute(select(ENDED_JOBS.c.job).order_by(ENDED_JOBS.c.number)).scalars())
        known = list(connection.execute(select(SNAPSHOTS.c.ended).order_by(SNAPSHOTS.c.seq)).scalars())
    assert len(jobs) == len(set(jobs)) == known[-1] > 4
    assert known == sorted(known)
