"""The disks of the world: what was committed is there after a crash, what was not is gone."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy.pool import NullPool

from resonator.bus.blobs import BlobMissing, BlobStore, digest_of
from resonator_agent.memory import Memory
from resonator_agent.outbox import Kept, Outbox
from resonator_hub import database
from resonator_hub.database import Database
from simulation.world.process import CURRENT, Killed

Moment = Callable[[str], None]
"""Told of each step of the process that runs, which may be its last."""


class Disk:
    """Whether there is space; `moment` hears of every step on it, `committed` of what is there for good."""

    def __init__(self, moment: Moment, committed: Callable[[], None]) -> None:
        self.full = False
        self.gone = False
        self.moment = moment
        self.committed = committed

    @property
    def troubled(self) -> bool:
        """Whether errors are to be expected."""
        return self.full or self.gone

    def check(self, what: str) -> None:
        """Raise OSError for a full disk, Killed for a process that is no more."""
        self.moment(what)
        process = CURRENT.get()
        if process is not None and not process.alive:
            raise Killed
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")


_FULL = 2
CLOSED = "Cannot operate on a closed database."
"""By this SQLAlchemy knows that a connection is lost."""


class Connection(sqlite3.Connection):
    """A connection to a database in memory, which outlives the processes that use it."""

    disk: Disk
    careful = False
    """Whether what is on disk for good is kept apart, for a loss of power."""
    _lasting = b""

    def commit(self) -> None:
        """Commit, unless the disk is full or the process ends just before; it may also end just after."""
        if not self.in_transaction:
            return
        try:
            self.disk.check("commit")
        except OSError:
            raise sqlite3.OperationalError("database or disk is full") from None
        if self.disk.gone:
            raise sqlite3.ProgrammingError(CLOSED)
        super().commit()
        self.settle()
        self.disk.committed()
        self.disk.moment("committed")
        if self.disk.gone:
            raise sqlite3.ProgrammingError(CLOSED)

    def settle(self) -> None:
        """Note what a loss of power would leave: all up to the last commit that waited for the disk."""
        if self.careful and self.execute("PRAGMA synchronous").fetchone()[0] >= _FULL:
            self._lasting = self.serialize()

    def lose_power(self) -> None:
        """Lose what no commit has waited for."""
        self.rollback()
        self.deserialize(self._lasting)
        self.execute("PRAGMA foreign_keys=ON")

    def close(self) -> None:
        """Nobody closes it but the world, with its last reference; what was not committed is gone."""
        self.rollback()


class Databases:
    """The database of each hub by the name of its process; all of them behind one engine."""

    def __init__(self) -> None:
        self._connections: dict[str, Connection] = {}

    def create(self, name: str, disk: Disk) -> Connection:
        """Make a database with the tables of this version."""
        made = sqlite3.connect(":memory:", factory=Connection, check_same_thread=False)
        made.disk = disk
        made.deserialize(_fresh())
        made.execute("UPDATE leadership SET origin = ?", (name,))
        sqlite3.Connection.commit(made)
        made.execute("PRAGMA foreign_keys=ON")
        self._connections[name] = made
        return made

    def current(self) -> Connection:
        """Return the database of the process that runs."""
        process = CURRENT.get()
        assert process is not None, "only processes use databases"
        if not process.alive:
            raise Killed
        connection = self._connections[process.name]
        if connection.disk.gone:
            raise sqlite3.OperationalError("connection refused")
        return connection


@cache
def _fresh() -> bytes:
    """Return an empty database that was migrated to this version."""
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.begin() as connection:
        database._migrate(connection)
    raw = engine.raw_connection()
    assert isinstance(raw.driver_connection, sqlite3.Connection)
    return raw.driver_connection.serialize()


_WORLD: list[Databases] = []


def _connect() -> Connection:
    return _WORLD[-1].current()


@cache
def engine() -> sqlalchemy.Engine:
    """Return the one engine: it remembers, from world to world, how statements are spelled."""
    return sqlalchemy.create_engine("sqlite://", creator=_connect, poolclass=NullPool)


class SharedDatabase(Database):
    """A database that may go away, as a PostgreSQL does; nobody waits for it to come back."""

    own = False

    def __init__(self, engine: sqlalchemy.Engine) -> None:
        super().__init__(engine, patience_s=-1.0)


def use(databases: Databases) -> None:
    """Have the engine connect to the databases of one world."""
    _WORLD[:] = [databases]


class Blobs(BlobStore):
    """Blobs in memory; only those that are on their way need a file."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        super().__init__(folder)
        self._blobs: dict[str, bytes] = {}
        self._disk = disk

    def has(self, digest: str) -> bool:
        """Whether the blob is there."""
        return digest in self._blobs

    def put(self, data: bytes) -> str:
        """Keep `data` and return its digest."""
        digest = digest_of(data)
        if digest not in self._blobs:
            self._disk.check("blob")
            self._blobs[digest] = data
        return digest

    def adopt(self, file: Path, digest: str) -> None:
        """Make a file a blob."""
        self._disk.check("blob")
        self._blobs[digest] = file.read_bytes()
        file.unlink()

    def get(self, digest: str) -> bytes:
        """Return the blob; raises BlobMissing."""
        try:
            return self._blobs[digest]
        except KeyError:
            raise BlobMissing(f"blob {digest} is not here") from None

    def read(self, digest: str, offset: int, length: int) -> tuple[bytes, int]:
        """Return a piece of the blob, and its size; raises BlobMissing."""
        data = self.get(digest)
        return data[offset : offset + length], len(data)

    def delete(self, digest: str) -> None:
        """Remove the blob, if it is there."""
        self._blobs.pop(digest, None)


class AgentMemory(Memory):
    """An agent's memory on a disk of the world; `windows` hears what is remembered for good."""

    def __init__(self, folder: Path, disk: Disk, windows: Callable[[int, str | None], None]) -> None:
        self._disk = disk
        self._windows = windows
        super().__init__(folder)

    def store_window(self, epoch: int, job: str | None) -> None:
        """Remember a window."""
        super().store_window(epoch, job)
        self._windows(epoch, job)
        self._disk.moment("remembered")

    def _write(self) -> None:
        self._disk.check("memory")
        super()._write()


class AgentOutbox(Outbox):
    """An agent's outbox on a disk of the world; `kept` and `forgotten` hear what goes in and out."""

    def __init__(
        self,
        path: Path,
        disk: Disk,
        kept: Callable[[Kept], None],
        forgotten: Callable[[tuple[str, ...]], None],
    ) -> None:
        self._disk = disk
        self._kept = kept
        self._forgotten = forgotten
        self._path = path
        self._lately: list[Kept] = []
        super().__init__(path)

    def add(self, kept: Kept) -> int:
        """Keep a message."""
        try:
            self._disk.check("outbox")
        except OSError:
            raise sqlite3.OperationalError("database or disk is full") from None
        dropped = super().add(kept)
        self._lately.clear()
        self._kept(kept)
        self._disk.moment("kept")
        return dropped

    def acknowledge(self, ids: Any) -> int:
        """Forget messages."""
        try:
            self._disk.check("acknowledge")
        except OSError:
            raise sqlite3.OperationalError("database or disk is full") from None
        self._lately += [kept for kept in self.pending() if kept.id in ids]
        forgotten = super().acknowledge(ids)
        self._forgotten(tuple(ids))
        return forgotten

    def lose_power(self) -> None:
        """Have those messages back that were forgotten without waiting for the disk."""
        outbox = Outbox(self._path)
        for kept in self._lately:
            outbox.add(kept)
        outbox.close()
