"""The hub's database: SQLite in a file by default, behind a URL that may name another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
from sqlalchemy import (
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
from sqlalchemy.exc import DatabaseError

from resonator.errors import InputInvalid, ResonatorError

Write = Callable[[Connection], None]
"""Something to be written in a transaction that somebody else commits."""

_MIGRATIONS = Path(__file__).with_name("migrations")


class DatabaseUnusable(ResonatorError):
    """The database cannot be opened or brought up to date."""


class Database:
    """An open database whose tables are those of this version; see `resonator_hub.tables`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> Database:
        """Open the database and migrate it to this version; raises DatabaseUnusable."""
        engine = _engine(url)
        try:
            with engine.begin() as connection:
                _migrate(connection)
        except DatabaseError as error:
            engine.dispose()
            raise DatabaseUnusable(f"the database {url} cannot be used: {error.orig}") from error
        return cls(engine)

    @classmethod
    def read(cls, path: Path) -> Database:
        """Open an existing SQLite file as it is, to be read; raises InputInvalid when it is none of ours."""
        if not path.is_file():
            raise InputInvalid(f"there is no journal at {path}; name a hub's state directory or its hub.db")
        engine = _engine(sqlite_url(path))
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("SELECT seq FROM events LIMIT 1")
        except DatabaseError as error:
            engine.dispose()
            raise InputInvalid(f"{path} is no journal of a hub: {error.orig}") from error
        return cls(engine)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Give a connection whose changes are on disk when the block ends, or undone if it raises."""
        with self._engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()


def sqlite_url(path: Path) -> str:
    """Spell the URL of a SQLite file."""
    return f"sqlite:///{path}"


def insert_once(connection: Connection, table: Table, key: tuple[str, ...], row: dict[str, Any]) -> bool:
    """Insert a row unless one with the same values in the columns `key` is there; return whether it was."""
    given = {f"given_{name}": value for name, value in row.items()}
    return connection.execute(_insertion(table, key, tuple(row)), given).rowcount == 1


@cache
def _insertion(table: Table, key: tuple[str, ...], names: tuple[str, ...]) -> Insert:
    """Return the statement; making it anew takes several times as long as inserting a row."""
    given = {name: bindparam(f"given_{name}", type_=table.c[name].type) for name in names}
    here = exists().where(*(table.c[name] == given[name] for name in key))
    return insert(table).from_select(list(names), select(*given.values()).where(~here))


def put(connection: Connection, table: Table, key: tuple[str, ...], row: dict[str, Any]) -> None:
    """Insert a row, or change the one with the same values in the columns `key`."""
    if not insert_once(connection, table, key, row):
        of = (table.c[name] == row[name] for name in key)
        connection.execute(table.update().where(*of).values(row))


def _engine(url: str) -> Engine:
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
        connection.execute(f"PRAGMA {pragma}")


def _migrate(connection: Connection) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, "head")
