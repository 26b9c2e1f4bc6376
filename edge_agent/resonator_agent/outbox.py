"""What the hub has to know, kept on disk until its application has acknowledged it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

MOST = 20_000
"""Beyond this many messages the oldest give way: a hub that was away that long measures afresh."""


@dataclass(frozen=True)
class Kept:
    """One message: its id, the channel it goes out on, what it is about, and its encoded form."""

    id: str
    channel: str
    subject: str
    payload: bytes


class Outbox:
    """An ordered, bounded queue in one SQLite file; no `kill -9` or power cut loses what is in it.

    A damaged file is put aside and an empty one begun: the hub has measured afresh what it never hears of.
    """

    def __init__(self, path: Path, *, most: int = MOST):
        self._most = most
        self._db = sqlite3.connect(path, isolation_level=None)
        try:
            self._prepare()
        except sqlite3.OperationalError:
            raise  # the disk's fault, not the file's
        except sqlite3.DatabaseError as error:
            self._db.close()
            aside = path.with_name(path.name + ".damaged")
            log.warning(f"{path} is damaged ({error}): put aside as {aside.name}")
            path.replace(aside)
            path.with_name(path.name + "-wal").unlink(missing_ok=True)  # it is the damaged file's
            self._db = sqlite3.connect(path, isolation_level=None)
            self._prepare()

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        if (found := self._db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS outbox (place INTEGER PRIMARY KEY AUTOINCREMENT,"
            " id TEXT UNIQUE NOT NULL, channel TEXT NOT NULL, subject TEXT NOT NULL, payload BLOB NOT NULL)"
        )

    def add(self, kept: Kept) -> int:
        """Keep a message for good before it is sent; return how many of the oldest gave way."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "INSERT OR IGNORE INTO outbox (id, channel, subject, payload) VALUES (?, ?, ?, ?)",
                (kept.id, kept.channel, kept.subject, kept.payload),
            )
            surplus = len(self) - self._most
            if surplus > 0:
                self._db.execute(
                    "DELETE FROM outbox WHERE place IN (SELECT place FROM outbox ORDER BY place LIMIT ?)",
                    (surplus,),
                )
        return max(surplus, 0)

    def acknowledge(self, ids: Iterable[str]) -> int:
        """Forget messages; ids that are not kept are ignored. Return how many were forgotten.

        This does not wait for the disk: what a power cut brings back is sent again, and ignored.
        """
        self._db.execute("PRAGMA synchronous=NORMAL")
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                return self._db.executemany("DELETE FROM outbox WHERE id = ?", [(i,) for i in ids]).rowcount
        finally:
            self._db.execute("PRAGMA synchronous=FULL")

    def pending(self) -> list[Kept]:
        """Return what has not been acknowledged, in the order it was added."""
        rows = self._db.execute("SELECT id, channel, subject, payload FROM outbox ORDER BY place")
        return [Kept(*row) for row in rows]

    def about(self, subject: str) -> list[Kept]:
        """Return what is pending on one subject."""
        return [kept for kept in self.pending() if kept.subject == subject]

    def __len__(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM outbox").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        self._db.close()
