"""The rows of a database as one file that any database can be filled from: gzip over msgpack.

It holds `["table", name, columns]` before the `["rows", [row, ...]]` of each table, and `["end", counts]`.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import alembic.command
import alembic.util
import msgpack
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Integer, MetaData, Table, func, insert, select, text

from resonator.errors import InputInvalid, ResonatorError
from resonator_hub.database import migrations

CHUNK = 1000
_OURS_ALONE = ("alembic_version", "leadership")
"""What tells of one database and is no use in another."""
_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_DIGEST_IN_BYTES = re.compile(_DIGEST.pattern.encode())
Progress = Callable[[int], None]


class BackupDamaged(ResonatorError):
    """A backup is not what was written."""


@dataclass
class Dumped:
    """What was written: the tables' version, how many rows of each, and every digest that occurs in them."""

    revision: str
    rows: dict[str, int] = field(default_factory=dict)
    digests: set[str] = field(default_factory=set)


def dump(connection: Connection, file: IO[bytes], progress: Progress) -> Dumped:
    """Write every row that a connection sees; `progress` is told of each chunk how many rows it has."""
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is None:
        raise InputInvalid("the database is empty: no hub has begun it")
    dumped = Dumped(revision)
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=3, mtime=0) as packed:
        for table in _tables(connection):
            packed.write(msgpack.packb(["table", table.name, table.columns.keys()]))
            dumped.rows[table.name] = 0
            for chunk in _chunks(connection, table):
                packed.write(msgpack.packb(["rows", chunk]))
                dumped.rows[table.name] += len(chunk)
                dumped.digests.update(digest for row in chunk for digest in _digests(row))
                progress(len(chunk))
        packed.write(msgpack.packb(["end", dumped.rows]))
    return dumped


def load(connection: Connection, revision: str, file: IO[bytes], progress: Progress) -> None:
    """Have a database hold these rows and nothing else, and bring it up to this version.

    Raises BackupDamaged, and InputInvalid for what a later version wrote.
    """
    _empty(connection)
    _upgrade(connection, revision)
    tables = {table.name: table for table in _tables(connection)}
    table: Table | None = None
    columns: list[str] = []
    counts = dict.fromkeys(tables, 0)
    for kind, *said in _items(file):
        if kind == "end":
            if said != [counts]:
                raise BackupDamaged(f"the backup says that it has {said[0]}, and has {counts}")
            break
        if kind == "table":
            table, columns = tables[said[0]], said[1]
        elif table is not None:
            connection.execute(insert(table), [dict(zip(columns, row, strict=True)) for row in said[0]])
            counts[table.name] += len(said[0])
            progress(len(said[0]))
    else:
        raise BackupDamaged("the backup breaks off")
    for table in tables.values():
        _count_on(connection, table)
    _upgrade(connection, "head")


def count(connection: Connection) -> int:
    """Return how many rows there are to dump."""
    tables = _tables(connection)
    return sum(connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables)


def _tables(connection: Connection) -> list[Table]:
    """Return the tables as they are there, whatever version made them; those come first that others name."""
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name not in _OURS_ALONE]


def _chunks(connection: Connection, table: Table) -> Iterator[list[list[Any]]]:
    ordered = select(table).order_by(*table.primary_key)
    for chunk in connection.execute(ordered, execution_options={"yield_per": CHUNK}).partitions():
        yield [list(row) for row in chunk]


def _digests(row: list[Any]) -> Iterator[str]:
    for value in row:
        if isinstance(value, str):
            yield from _DIGEST.findall(value)
        elif isinstance(value, bytes):
            yield from (digest.decode() for digest in _DIGEST_IN_BYTES.findall(value))


def _items(file: IO[bytes]) -> Iterator[list[Any]]:
    try:
        with gzip.GzipFile(fileobj=file) as packed:
            yield from msgpack.Unpacker(packed, max_buffer_size=2**31 - 1)
    except (OSError, EOFError, ValueError, msgpack.UnpackException) as error:
        raise BackupDamaged(f"the backup's rows cannot be read: {error}") from error


def _empty(connection: Connection) -> None:
    metadata = MetaData()
    metadata.reflect(connection)
    metadata.drop_all(connection)


def _upgrade(connection: Connection, revision: str) -> None:
    try:
        alembic.command.upgrade(migrations(connection), revision)
    except alembic.util.CommandError as error:
        raise InputInvalid(
            f"the backup was made by a later version of the hub (its tables are {revision})"
        ) from error


def _count_on(connection: Connection, table: Table) -> None:
    """Have PostgreSQL number new rows from where those end that came with their numbers."""
    (key, *more) = table.primary_key.columns
    if connection.dialect.name != "postgresql" or more or not isinstance(key.type, Integer):
        return
    names = {"table": table.name, "column": key.name}
    sequence = connection.execute(text("SELECT pg_get_serial_sequence(:table, :column)"), names).scalar()
    latest = connection.execute(select(func.max(key))).scalar()
    if sequence is not None and latest is not None:
        connection.execute(
            text("SELECT setval(:sequence, :latest)"), {"sequence": sequence, "latest": latest}
        )
