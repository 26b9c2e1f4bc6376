"""A real PostgreSQL is cut off, restarted, killed under a hub's hands: what was accepted is there, once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, text

from fakes.postgres import Postgres, postgres
from fakes.wire import between
from resonator.cli.exits import ExitCode, code_of
from resonator.errors import InputInvalid
from resonator_hub import audit, replay
from resonator_hub.database import Database, DatabaseLost, DatabaseUnusable
from resonator_hub.journal import Journal
from resonator_hub.leadership import BEAT_S, SILENCE_S, Deposed, Leadership
from resonator_hub.scheduler.events import Event, HubStarted, Tick

FIRST, SECOND, THIRD = Tick(1.0), Tick(2.0), Tick(3.0)
SHORT_S = 0.5


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@contextmanager
def led(url: str, patience_s: float = 30.0, beat_s: float = BEAT_S) -> Iterator[Database]:
    """A shared database with its leader."""
    database = Database.open(url, patience_s=patience_s)
    leadership = Leadership(database, beat_s=beat_s)
    assert leadership.attempt()
    try:
        yield database
    finally:
        leadership.close()
        database.close()


def kept(url: str) -> list[Event]:
    database = Database.read(url)
    try:
        return list(Journal(database).events())
    finally:
        database.close()


def test_what_is_written_after_a_restart_of_the_server_is_written(server: Postgres) -> None:
    url = server.fresh()
    with led(url) as database:
        journal = Journal(database)
        journal.append(FIRST)
        server.restart()
        journal.append(SECOND)
        server.kill()
        with ThreadPoolExecutor(1) as aside:
            back = aside.submit(server.start)
            journal.append(THIRD)
            back.result()
    assert kept(url) == [FIRST, SECOND, THIRD]


def test_what_was_cut_off_in_the_middle_is_written_once(server: Postgres) -> None:
    url, times = server.fresh(), []

    def cut(_connection: Connection) -> None:
        times.append(1)
        if len(times) == 1:
            server.disconnect_all()

    with led(url) as database:
        journal = Journal(database)
        journal.append_all([(FIRST, None), (SECOND, cut), (THIRD, None)])
    assert len(times) == 2
    assert kept(url) == [FIRST, SECOND, THIRD]


def test_a_commit_whose_answer_is_lost_is_not_done_twice(server: Postgres) -> None:
    url = server.fresh()
    with between(server.port) as wire, led(url.replace(str(server.port), str(wire.port))) as database:
        journal = Journal(database)
        first = journal.append(FIRST)
        wire.cut_at = b"COMMIT\x00"
        second = journal.append(SECOND)
        assert wire.cuts == 1
        assert first < second == journal.length()
    assert kept(url) == [FIRST, SECOND]


def test_a_database_that_does_not_come_back_has_ended(server: Postgres) -> None:
    told: list[Exception] = []
    with led(server.fresh(), SHORT_S) as database:
        database.on_end(told.append)
        journal = Journal(database)
        journal.append(FIRST)
        server.stop()
        try:
            with pytest.raises(DatabaseLost, match=r"is not there: .*refused") as lost:
                journal.append(SECOND)
        finally:
            server.start()
        with pytest.raises(DatabaseLost):
            journal.length()  # what was not answered is not to be taken for an answer later
    assert told == [lost.value]
    assert code_of(lost.value) is ExitCode.UNREACHABLE, "to be started again"
    assert "postgres@127.0.0.1" in str(lost.value)


def test_a_hub_waits_for_the_database_when_it_starts(server: Postgres) -> None:
    url = server.fresh()
    server.stop()
    with ThreadPoolExecutor(1) as aside:
        back = aside.submit(server.start)
        Database.open(url).close()
        back.result()
    assert kept(url) == []


def test_what_will_not_help_is_not_waited_for_and_no_password_is_told(server: Postgres) -> None:
    url = server.url("nowhere").replace("postgres@", "postgres:secret@")
    with pytest.raises(DatabaseUnusable, match='"nowhere" does not exist') as wrong:
        Database.open(url)
    for error in (wrong.value, wrong.value.__cause__):
        assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("mysql://root:secret@here/hub", "a database of 'mysql' is of no use to a hub: write postgresql://"),
        ("postgresql://u:secret@here:port/hub", "URL cannot be read: write postgresql://USER@HOST:PORT/NAME"),
        ("sqlite://", "a database of 'sqlite' is of no use"),
    ],
)
def test_a_url_that_is_none_gets_one_clear_sentence(url: str, why: str) -> None:
    with pytest.raises(InputInvalid) as refused:
        Database.open(url)
    assert why in str(refused.value)
    assert "secret" not in str(refused.value)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resonator_hub.database_url.find_spec", lambda _name: None)
    with pytest.raises(InputInvalid, match=r"pip install 'resonator\[hub,postgres\]'"):
        Database.open("postgresql://here/hub")


def test_replay_and_audit_read_a_shared_database(server: Postgres) -> None:
    url = server.fresh()
    with led(url) as database:
        Journal(database).append(HubStarted(1.0, 2, "load_aware", 16, 60.0))
        assert replay.fold(url).events == 1
        assert list(audit.entries(url)) == []
    with pytest.raises(InputInvalid, match="is no journal of a hub"):
        replay.fold(server.fresh())


class Steady:
    """A clock of one's own."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_standby_leads_when_the_leader_is_silent_and_not_before(server: Postgres) -> None:
    url, clock = server.fresh(), Steady()
    with led(url, beat_s=0.02), standing_by(url, clock) as (_, standby):
        silent_until = clock.now + 3 * SILENCE_S
        while clock.now < silent_until:
            before = standby.reign().beat
            assert not standby.attempt()
            clock.now += SILENCE_S / 4
            until_beaten(standby, before)


def until_beaten(standby: Leadership, before: int) -> None:
    """Return when the leader has beaten again; each look takes as long as the server takes to answer."""
    while standby.reign().beat == before:
        pass


@contextmanager
def standing_by(url: str, clock: Steady) -> Iterator[tuple[Database, Leadership]]:
    database = Database.open(url)
    leadership = Leadership(database, "standby", steady=clock)
    try:
        yield database, leadership
    finally:
        leadership.close()
        database.close()


def silence(clock: Steady, standby: Leadership) -> bool:
    """Let the standby look on for as long as it waits; return whether it leads then."""
    looks = 10
    for _ in range(looks):
        assert not standby.attempt()
        clock.now += SILENCE_S / looks + 0.01
    return standby.attempt()


def test_a_leader_that_was_stopped_writes_nothing_when_it_goes_on(server: Postgres) -> None:
    url, clock = server.fresh(), Steady()
    old = Database.open(url)
    stopped = Leadership(old, "old", beat_s=1000.0)  # it does not beat, but holds itself for the leader
    assert stopped.attempt()
    Journal(old).append(FIRST)
    with standing_by(url, clock) as (new, standby):
        assert silence(clock, standby)
        Journal(new).append(SECOND)
        with pytest.raises(Deposed, match=r"standby leads the database .* since term 2; this hub led term 1"):
            Journal(old).append(THIRD)
        with pytest.raises(Deposed):
            Journal(old).length()
        assert standby.reign().holder == "standby"
    stopped.close()
    old.close()
    assert kept(url) == [FIRST, SECOND]


def test_a_leader_that_was_stopped_in_the_middle_of_a_transaction_is_not_waited_for(server: Postgres) -> None:
    url, clock = server.fresh(), Steady()
    reached, go_on = threading.Event(), threading.Event()

    def stop(_connection: Connection) -> None:
        reached.set()
        assert go_on.wait(60)

    old = Database.open(url)
    stopped = Leadership(old, "old", beat_s=1000.0)
    assert stopped.attempt()
    with ThreadPoolExecutor(1) as aside, standing_by(url, clock) as (new, standby):
        writing = aside.submit(Journal(old).append, FIRST, stop)
        assert reached.wait(60)
        led = silence(clock, standby)
        while not led:  # the server holds the row for the old leader a few seconds
            led = standby.attempt()
        Journal(new).append(SECOND)
        go_on.set()
        with pytest.raises(Deposed):
            writing.result(60)
    stopped.close()
    old.close()
    assert kept(url) == [SECOND]


def test_a_leader_that_ends_hands_on_at_once(server: Postgres) -> None:
    url, clock = server.fresh(), Steady()
    with standing_by(url, clock) as (_, standby):
        with led(url):
            assert not standby.attempt()
        assert standby.attempt()


def test_a_leader_may_read_but_writes_through_the_fence_alone(server: Postgres) -> None:
    with led(server.fresh()) as database:
        with database.transaction() as connection:
            with pytest.raises(Exception, match="read-only transaction"):
                connection.execute(text("DELETE FROM events"))
            connection.rollback()
        Journal(database).append(FIRST)
