"""Taking up a backup: the database holds what it held then, or what it held before, and nothing between."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, func, select, update

from resonator.bus.blobs import Blobs
from resonator.errors import InputInvalid, Refused
from resonator_hub.backup import rows
from resonator_hub.backup.making import Progress
from resonator_hub.backup.places import Manifest, Place
from resonator_hub.database import JOURNAL, Database, sqlite_url
from resonator_hub.leadership import LOOK_S, Leadership
from resonator_hub.lock import StateLock
from resonator_hub.tables import EVENTS, LEADERSHIP


def restore(
    place: Place, state: Path, url: str | None, blobs: Blobs, progress: Progress, *, force: bool
) -> Manifest:
    """Fill a hub's database, by default the file in its state directory, and its blobs from a backup.

    A database in which something is recorded already is only replaced by `force`, and never under a running
    hub. Raises InputInvalid, Refused for one that is in use, and BackupDamaged; nothing has changed then,
    but that some blobs more are there.
    """
    manifest = place.manifest()
    lock = StateLock(state)
    try:
        with _ours(url) if url is not None else _file(state) as database:
            if not force:
                _refuse_to_overwrite(state / JOURNAL if url is None else url)
            _fetch(manifest, place, blobs, progress)
            progress.begin("rows", sum(manifest.counts.values()))
            with place.rows() as file, database.unguarded() as connection:
                _begin(connection)
                reign = connection.execute(select(LEADERSHIP)).one()._asdict()
                rows.load(connection, manifest.revision, file, progress.advance)
                # It is another database now, led by who led it: a hub that was stopped is over.
                reign["origin"] = secrets.token_hex(8)
                connection.execute(update(LEADERSHIP).values(reign))
    finally:
        lock.release()
    return manifest


def _fetch(manifest: Manifest, place: Place, blobs: Blobs, progress: Progress) -> None:
    progress.begin("blobs", len(manifest.blobs))
    for digest in manifest.blobs:
        if not blobs.has(digest):
            blobs.put(place.blob(digest))
        progress.advance(1)


def _begin(connection: Connection) -> None:
    """Begin a transaction in which tables may change and that may take its time."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")


def _refuse_to_overwrite(there: Path | str) -> None:
    if isinstance(there, Path) and not there.exists():
        return
    try:
        with contextlib.closing(Database.read(there)) as database, database.transaction() as connection:
            events = connection.execute(select(func.count()).select_from(EVENTS)).scalar_one()
    except InputInvalid as error:
        raise InputInvalid(f"{error}; with --force it is replaced") from error
    if events:
        raise InputInvalid(f"{database} holds {events} events already: with --force they are replaced")


@contextlib.contextmanager
def _file(state: Path) -> Iterator[Database]:
    """Give a database in a new file, which takes the place of the state directory's when the block ends."""
    path, new = state / JOURNAL, state / f".{JOURNAL}.restored"
    _forget(new)
    try:
        database = Database.open(sqlite_url(new))
        try:
            yield database
        finally:
            database.close()
        _settle(path)
        os.replace(new, path)
    finally:
        _forget(new)


def _settle(path: Path) -> None:
    """Have a database be one file, without a log that would be taken for its successor's."""
    if path.exists():
        with contextlib.suppress(sqlite3.DatabaseError), contextlib.closing(sqlite3.connect(path)) as old:
            old.execute("PRAGMA journal_mode=DELETE")  # one that cannot be read has nothing to lose
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _forget(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def _ours(url: str) -> Iterator[Database]:
    """Give a shared database that no hub leads, and none will until the block ends; raises Refused."""
    database = Database.open(url)
    leadership = Leadership(database)
    try:
        _lead(leadership, database)
        yield database
    finally:
        leadership.close()
        database.close()


def _lead(leadership: Leadership, database: Database) -> None:
    """Wait until whoever led is silent for long enough; raises Refused as soon as he beats."""
    before = leadership.reign()
    while not leadership.attempt():
        if leadership.reign().beat != before.beat:
            raise Refused(f"{leadership.told()} the database {database}: stop that hub, and its standbys")
        time.sleep(LOOK_S)
