"""The hub's database: SQLite in a file by default, or PostgreSQL where hubs share one.

PostgreSQL may go away and come back. Whoever wants a connection waits for it, `PATIENCE_S` at most, and a
`write` that was cut off is made again, unless it had been committed and only the answer was lost. When it
does not come back, the database has ended for this process, and every use of it says so: a hub that went on
without one would take its failure for news of a job.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import alembic.command
import alembic.config
import alembic.util
import structlog
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Insert,
    Table,
    bindparam,
    create_engine,
    event,
    exists,
    insert,
    select,
)
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError

from resonator.errors import InputInvalid, ResonatorError, Unreachable
from resonator_hub import database_url

Write = Callable[[Connection], None]
"""Something to be written in a transaction that somebody else commits, and repeats when it was cut off."""
T = TypeVar("T")

log = structlog.get_logger(__name__)
JOURNAL = "hub.db"
"""What the database is called in a state directory."""
PATIENCE_S = 15.0
"""How long a database may be away: less than what makes a broker throw a silent client out."""
_RETRY_S = 0.25
IDLE_S = 4
"""After how long the server gives up a transaction whose hub was stopped in the middle, and its locks."""
_MIGRATIONS = Path(__file__).with_name("migrations")
_MIGRATING = 7_265_736_003
"""The advisory lock of whoever migrates; any number that nobody else uses."""
_SOON = ("starting up", "shutting down", "in recovery", "not yet accepting", "too many")
"""What a PostgreSQL says that will let us in a little later."""


class DatabaseUnusable(ResonatorError):
    """The database cannot be opened, brought up to date or written."""


class DatabaseLost(Unreachable):
    """The database did not come back in time; nothing that was accepted is lost with it."""


class Fence(Protocol):
    """Lets the writes of the leader through and nobody else's; see `resonator_hub.leadership`."""

    def claim(self, connection: Connection, token: str) -> None:
        """Mark a transaction with its token; raises when another hub leads."""

    def claimed(self, connection: Connection, token: str) -> bool:
        """Whether the transaction of this token, the latest, has been committed."""


class Database:
    """An open database whose tables are those of this version; see `resonator_hub.tables`."""

    def __init__(self, engine: Engine, *, patience_s: float = PATIENCE_S) -> None:
        self._engine = engine
        self._patience_s = patience_s
        self._writing = threading.RLock()
        self._fence: Fence | None = None
        self._end: ResonatorError | None = None
        self._on_end: Callable[[ResonatorError], object] | None = None

    @classmethod
    def open(cls, url: str, *, patience_s: float = PATIENCE_S) -> Database:
        """Open the database, wait for it if need be, and migrate it to this version.

        Raises InputInvalid for what is no URL of a database, DatabaseUnusable, and DatabaseLost when it did
        not answer in time.
        """
        database = cls(_engine(database_url.read(url)), patience_s=patience_s)
        try:
            with database._connected() as connection, connection.begin():
                _migrate(connection)
        except DatabaseError as error:
            database.close()
            raise DatabaseUnusable(f"the database {database} cannot be used: {_said(error)}") from error
        except alembic.util.CommandError as error:
            database.close()
            raise DatabaseUnusable(f"the database {database} is of a later version of the hub") from error
        except ResonatorError:
            database.close()
            raise
        return database

    @classmethod
    def read(cls, place: Path | str) -> Database:
        """Open what a state directory, a SQLite file or a URL names, as it is, to be read.

        Raises InputInvalid when it is no database of a hub.
        """
        if isinstance(place, str) and database_url.is_url(place):
            url = database_url.read(place)
        else:
            path = Path(place)
            path = path / JOURNAL if path.is_dir() else path
            if not path.is_file():
                raise InputInvalid(
                    f"there is no journal at {path}; name a hub's state directory, its {JOURNAL}, "
                    "or its database's URL"
                )
            url = database_url.read(database_url.of_file(path))
        database = cls(_engine(url), patience_s=0.0)
        try:
            with database._connected() as connection:
                connection.exec_driver_sql("SELECT seq FROM events LIMIT 1")
        except DatabaseError as error:
            database.close()
            raise InputInvalid(f"{database} is no journal of a hub: {_said(error)}") from error
        return database

    def __str__(self) -> str:
        url = self._engine.url
        return str(url.database) if self.own else database_url.shown(url)

    @property
    def own(self) -> bool:
        """Whether it is a file of one hub's, which no other can share and which cannot go away."""
        return self._engine.dialect.name == "sqlite"

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Give a connection whose changes are on disk when the block ends, or undone if it raises.

        A hub that shares its database reads this way alone, and changes things by `write`. Raises
        DatabaseLost.
        """
        try:
            with self._connected() as connection:
                if self._fence is not None:
                    connection.execution_options(postgresql_readonly=True)
                with connection.begin():
                    yield connection
        except DBAPIError as error:
            if error.connection_invalidated:
                raise self._lost(error) from error
            raise

    @contextmanager
    def unguarded(self) -> Iterator[Connection]:
        """Give a connection to write by at once or not at all, past the fence: for who keeps the fence."""
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Give a connection that sees the database as it is now, for as long as the block takes."""
        with self._connected() as connection:
            if self.own:
                connection.exec_driver_sql("BEGIN")
            else:
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            yield connection

    def write(self, work: Callable[[Connection], T], *, lasting: bool = True) -> T:
        """Do some writing in a transaction, once; what it returns is on disk, all of it.

        What is not `lasting` need not be there before the next write that is, which then speaks of it: a hub
        with a file of its own waits for the disk once instead of for each.

        `work` may be called again when the connection is lost in the middle. Raises what it raises (nothing
        is written then), DatabaseLost, DatabaseUnusable for a full disk, and what the fence raises.
        """
        token, give_up = secrets.token_hex(8), time.monotonic() + self._patience_s
        done: list[T] = []
        with self._writing:
            while not self._written(work, token, done, give_up, lasting):
                log.warning("the database was lost in the middle of a transaction: once more")
        return done[0]

    def _written(
        self, work: Callable[[Connection], T], token: str, done: list[T], give_up: float, lasting: bool
    ) -> bool:
        """Try a transaction, and return whether it is known to be committed; its result is then in `done`."""
        waits = lasting or not self.own
        try:
            with self._connected() as connection, _syncing(connection, waits), connection.begin():
                if self._fence is not None:
                    if done and self._fence.claimed(connection, token):
                        return True
                    self._fence.claim(connection, token)
                done[:] = [work(connection)]
        except DBAPIError as error:
            if error.connection_invalidated:
                # Without a fence nobody knows whether a commit was done whose answer is missing.
                if self._fence is None or time.monotonic() > give_up:
                    raise self._lost(error) from error
                return False
            if isinstance(error, OperationalError):
                raise self._refused(error) from error
            raise
        return True

    def fence(self, fence: Fence) -> None:
        """Have every `write` from now on pass a fence."""
        self._fence = fence

    @property
    def ended(self) -> ResonatorError | None:
        """Why the database is of no use to this process any more, if it is not."""
        return self._end

    def on_end(self, hook: Callable[[ResonatorError], object]) -> None:
        """Call `hook`, from whatever thread, when the database has ended for this process, or at once."""
        self._on_end = hook
        if self._end is not None:
            hook(self._end)

    def end(self, error: ResonatorError) -> None:
        """Let nobody use the database any more: every use raises this error."""
        if self._end is None:
            self._end = error
            if self._on_end is not None:
                self._on_end(error)

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

    def _connected(self) -> Connection:
        """Return a connection that was alive a moment ago; raises DatabaseLost, DatabaseUnusable."""
        give_up, said = time.monotonic() + self._patience_s, False
        while True:
            if self._end is not None:
                raise self._end
            try:
                return self._engine.connect()
            except OperationalError as error:
                if self.own or not _comes_back(error):
                    raise
                if time.monotonic() > give_up:
                    raise self._lost(error) from error
                if not said:
                    log.warning(
                        f"waiting for the database {self}, {self._patience_s:g} s at most",
                        reason=_said(error),
                    )
                    said = True
            time.sleep(_RETRY_S)

    def _lost(self, error: DBAPIError) -> DatabaseLost:
        lost = DatabaseLost(f"the database {self} is not there: {_said(error)}")
        self.end(lost)
        return lost

    def _refused(self, error: OperationalError) -> DatabaseUnusable:
        refused = DatabaseUnusable(f"the database {self} cannot be written: {_said(error)}")
        self.end(refused)
        return refused


def sqlite_url(path: Path) -> str:
    """Spell the URL of a SQLite file."""
    return database_url.of_file(path)


def insert_once(connection: Connection, table: Table, key: tuple[str, ...], row: dict[str, Any]) -> bool:
    """Insert a row unless one with the same values in the columns `key` is there; return whether it was."""
    given = {f"given_{name}": value for name, value in row.items()}
    return connection.execute(_insertion(table, key, tuple(row)), given).rowcount == 1


@cache
def _insertion(table: Table, key: tuple[str, ...], names: tuple[str, ...]) -> Insert:
    """Return the statement; making it anew takes several times as long as inserting a row."""
    given = {name: bindparam(f"given_{name}", type_=table.c[name].type) for name in names}
    here = exists().where(*(table.c[name] == given[name] for name in key))
    insertion = insert(table).from_select(list(names), select(*given.values()).where(~here))
    return insertion.execution_options(preserve_rowcount=True)


def put(connection: Connection, table: Table, key: tuple[str, ...], row: dict[str, Any]) -> None:
    """Insert a row, or change the one with the same values in the columns `key`."""
    if not insert_once(connection, table, key, row):
        of = (table.c[name] == row[name] for name in key)
        connection.execute(table.update().where(*of).values(row))


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url)
        event.listen(engine, "connect", _configure_sqlite)
        return engine
    # A connection that hangs is worse than one that is lost: nothing would end it.
    dead_after = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
    dead_after |= {"connect_timeout": 5, "tcp_user_timeout": 10_000}
    given = {name: value for name, value in dead_after.items() if name not in url.query}
    engine = create_engine(url, pool_pre_ping=True, connect_args={"application_name": "resonator", **given})
    event.listen(engine, "connect", _configure_postgres)
    return engine


@contextmanager
def _syncing(connection: Connection, waits: bool) -> Iterator[None]:
    """Have a commit wait for the disk, or else leave that to the next one that does.

    SQLite's log is one file that is written in order: whoever waits for his own pages waits for all before.
    """
    if waits:
        yield
        return
    pragma = connection.connection.cursor()
    pragma.execute("PRAGMA synchronous=NORMAL")
    try:
        yield
    finally:
        connection.connection.rollback()  # a commit that has failed leaves its transaction open
        pragma.execute("PRAGMA synchronous=FULL")
        pragma.close()


def _configure_sqlite(connection: Any, _record: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
        connection.execute(f"PRAGMA {pragma}")


def _configure_postgres(connection: Any, _record: object) -> None:
    # synchronous_commit: what was answered is on disk, whatever the server's administrator prefers.
    settings = {"idle_in_transaction_session_timeout": f"{IDLE_S}s", "synchronous_commit": "on"}
    for name, value in settings.items():
        connection.execute(f"SET {name} = '{value}'")
    connection.commit()


def _migrate(connection: Connection) -> None:
    """Bring the tables up to date; of several who begin at once the others wait for the first."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATING})")
    alembic.command.upgrade(migrations(connection), "head")


def migrations(connection: Connection) -> alembic.config.Config:
    """Return what Alembic must know to change the tables behind a connection."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _comes_back(error: OperationalError) -> bool:
    """Whether a server that gave us no connection may give us one later."""
    said = str(error.orig)
    return "FATAL" not in said or any(sign in said for sign in _SOON)


def _said(error: DBAPIError) -> str:
    """Return what a driver said, on one line."""
    return " ".join(str(error.orig).split())
