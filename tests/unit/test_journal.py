"""The journal: what is appended is there, together with what belongs to it, for one hub at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from resonator.errors import InputInvalid
from resonator.ids import CandidateId, DeviceId, JobId, TaskId
from resonator.jobspec import Measure, TargetSpec
from resonator_hub.database import Database, DatabaseUnusable, sqlite_url
from resonator_hub.journal import Journal, JournalUnreadable
from resonator_hub.lock import StateLock
from resonator_hub.scheduler import events
from resonator_hub.tables import METADATA

ORDER = events.JobOrder("a", TargetSpec(kind="cpu"), trials=8, measure=Measure())
EVENTS: list[events.Event] = [
    events.HubStarted(1.0, 2),
    events.JobSubmitted(2.0, JobId("a"), ORDER, "local/me"),
    events.DeviceSeen(3.0, DeviceId("s/d"), 1, 0, "cpu", (events.Offer("cpu", "{}"),), (("k", "v"),)),
    events.CandidatesSelected(
        4.0, JobId("a"), TaskId("a/t0"), 0, (events.CandidateFound(CandidateId("a/t0/c0"), "t", "f"),)
    ),
    events.Measured(5.0, DeviceId("s/d"), 1, JobId("a"), CandidateId("a/t0/c0"), (0.1, 0.2), error=1e-9),
    events.Tick(6.0),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub.db"


def test_events_come_back_as_they_were(path: Path) -> None:
    database = Database.open(sqlite_url(path))
    journal = Journal(database)
    assert [journal.append(event) for event in EVENTS] == [1, 2, 3, 4, 5, 6]
    database.close()

    again = Database.open(sqlite_url(path))
    assert list(Journal(again).events()) == EVENTS
    assert Journal(again).last_at() == 6.0
    assert Journal(again).length() == 6
    again.close()


def test_events_that_came_together_are_kept_together_or_none_is(path: Path) -> None:
    database = Database.open(sqlite_url(path))
    journal = Journal(database)
    written: list[str] = []
    entries = [(EVENTS[0], None), (EVENTS[1], lambda _connection: written.append("beside the second"))]
    assert journal.append_all(entries) == 2
    assert written == ["beside the second"]

    def fails(_connection: Connection) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        journal.append_all([(EVENTS[2], None), (EVENTS[3], fails)])
    assert list(journal.events()) == EVENTS[:2]
    database.close()


def test_more_events_than_a_page_come_in_order(path: Path) -> None:
    database = Database.open(sqlite_url(path))
    journal = Journal(database)
    with database.transaction() as connection:
        connection.execute(
            text("INSERT INTO events (at, name, body) VALUES (:at, 'Tick', :body)"),
            [{"at": float(n), "body": f'{{"at": {n}}}'} for n in range(2500)],
        )
    assert [event.at for event in journal.events()] == [float(n) for n in range(2500)]
    database.close()


def test_an_event_and_what_belongs_to_it_are_kept_together_or_not_at_all(path: Path) -> None:
    database = Database.open(sqlite_url(path))
    journal = Journal(database)

    def fails(connection: Connection) -> None:
        connection.execute(text("INSERT INTO devices VALUES ('s/d', '{}')"))
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        journal.append(events.Tick(1.0), fails)
    assert journal.length() == 0
    with database.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM devices")).scalar() == 0
    database.close()


def test_an_unknown_event_is_named(path: Path) -> None:
    database = Database.open(sqlite_url(path))
    with database.transaction() as connection:
        connection.execute(text("INSERT INTO events (at, name, body) VALUES (1, 'Eclipse', '{}')"))
    with pytest.raises(JournalUnreadable, match="event 1 of the journal, a Eclipse"):
        list(Journal(database).events())
    database.close()


def test_the_journal_is_durable_and_readable_while_a_hub_writes(path: Path) -> None:
    database = Database.open(sqlite_url(path))
    with database.transaction() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
    Journal(database).append(events.Tick(1.0))
    reader = Database.read(path)
    assert list(Journal(reader).events()) == [events.Tick(1.0)]
    reader.close()
    database.close()


def test_the_migrations_lead_to_the_tables_of_this_version(path: Path) -> None:
    database = Database.open(sqlite_url(path))
    with database.transaction() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    database.close()
    Database.open(sqlite_url(path)).close()  # and a second time there is nothing to do


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(DatabaseUnusable, match="file is not a database"):
        Database.open(sqlite_url(path))
    with pytest.raises(InputInvalid, match="no journal of a hub"):
        Database.read(path)
    with pytest.raises(InputInvalid, match="there is no journal at"):
        Database.read(path.with_name("other.db"))


def test_a_state_directory_belongs_to_one_hub(tmp_path: Path) -> None:
    lock = StateLock(tmp_path)
    with pytest.raises(InputInvalid, match=r"in use by another hub \(process \d+\)"):
        StateLock(tmp_path)
    lock.release()
    StateLock(tmp_path).release()


def test_the_lock_of_a_killed_hub_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from resonator_hub.lock import StateLock;"
        "lock = StateLock(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InputInvalid, match=f"process {holder.pid}"):
            StateLock(tmp_path)
        holder.kill()
    StateLock(tmp_path).release()
