"""Which of the hubs that share a database leads: one writes, the others stand by.

One row says who leads, for which term, and counts his beats. Whoever sees no beat for `SILENCE_S` of his own
clock begins the next term, if the row is still as he saw it; nobody compares clocks. Every transaction of a
leader says its term first, and fails when another has begun: a leader that was stopped for minutes and goes
on in the middle of a sentence journals nothing, and what is not journalled is not done.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from resonator.errors import Unreachable
from resonator_hub.database import Database
from resonator_hub.tables import LEADERSHIP

log = structlog.get_logger(__name__)
BEAT_S = 1.5
SILENCE_S = 5.0
"""After how long without a beat a leader is taken for dead; the server frees his locks before (`IDLE_S`)."""
LOOK_S = 0.5
_LOCK_S = 1
"""How long the row may be locked by a transaction of the leader, before one looks again."""


class Deposed(Unreachable):
    """Another hub leads the database that this one led."""


@dataclass(frozen=True)
class Reign:
    """Who leads: nobody, where the holder is empty."""

    holder: str
    term: int
    beat: int


class Leadership:
    """The claim of one hub to a shared database; the database's fence while it leads."""

    def __init__(
        self,
        database: Database,
        holder: str | None = None,
        *,
        beat_s: float = BEAT_S,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.holder = holder or f"{socket.gethostname()}/{os.getpid()}"
        self._database = database
        self._beat_s = beat_s
        self._steady = steady
        self._seen: Reign | None = None
        self._seen_since = self._looked_at = 0.0
        self._term: int | None = None
        self._over = threading.Event()
        self._beating: threading.Thread | None = None

    def reign(self) -> Reign:
        """Return who leads now."""
        with self._database.transaction() as connection:
            return _reign(connection)

    async def lead(self) -> None:
        """Stand by until this hub leads; raises DatabaseLost."""
        told = None
        while not await asyncio.to_thread(self.attempt):
            if self._seen is not None and self._seen.term != told:
                told = self._seen.term
                log.info(f"standing by: {self._seen.holder} leads the database {self._database}", term=told)
            await asyncio.sleep(LOOK_S)
        log.info(f"this hub leads the database {self._database}", term=self._term)

    def told(self) -> str:
        """Say who leads, as seen last."""
        seen = self._seen
        return f"{seen.holder} leads (term {seen.term})" if seen and seen.holder else "nobody leads"

    def attempt(self) -> bool:
        """Look once, and take the lead from nobody or from who is silent; return whether we lead now."""
        seen, now = self.reign(), self._steady()
        # Whoever did not look for a while, because he or the database was stopped, has not seen any silence.
        if seen != self._seen or now - self._looked_at > SILENCE_S / 2:
            self._seen, self._seen_since = seen, now
        self._looked_at = now
        if seen.holder and now - self._seen_since < SILENCE_S:
            return False
        if not self._take(seen):
            return False
        self._database.fence(self)
        self._beating = threading.Thread(target=self._beat_on, name="leadership", daemon=True)
        self._beating.start()
        return True

    def _take(self, seen: Reign) -> bool:
        """Begin the next term, unless anything has changed or the row is locked."""
        mine = {"holder": self.holder, "term": seen.term + 1, "beat": seen.beat + 1}
        as_seen = (LEADERSHIP.c.term == seen.term, LEADERSHIP.c.beat == seen.beat)
        try:
            with self._database.unguarded() as connection:
                if not self._database.own:
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_S}s'")
                take = update(LEADERSHIP).where(*as_seen).values(mine)
                taken = connection.execute(take).rowcount == 1
        except DBAPIError:
            return False  # a dead leader's transaction holds the row a little longer, or the database is away
        if taken:
            self._term = seen.term + 1
        return taken

    def claim(self, connection: Connection, token: str) -> None:
        """Mark a transaction with its token; raises Deposed when another hub leads."""
        own = LEADERSHIP.c.term == self._term
        if connection.execute(update(LEADERSHIP).where(own).values(written=token)).rowcount != 1:
            raise self._deposed(_reign(connection))

    def claimed(self, connection: Connection, token: str) -> bool:
        """Whether the transaction of this token, the latest of this hub, has been committed."""
        return bool(connection.execute(select(LEADERSHIP.c.written)).scalar_one() == token)

    def check(self) -> None:
        """Raise Deposed when another hub leads by now."""
        reign = self.reign()
        if reign.term != self._term:
            raise self._deposed(reign)

    def close(self) -> None:
        """Let go of the lead, so that whoever stands by need not wait."""
        self._over.set()
        if self._beating is None:
            return
        self._beating.join()
        try:
            with self._database.unguarded() as connection:
                connection.execute(
                    update(LEADERSHIP).where(LEADERSHIP.c.term == self._term).values(holder="")
                )
        except DBAPIError as error:
            log.warning("the lead is not given back: it ends by silence", reason=str(error.orig))

    def _beat_on(self) -> None:
        """Beat in a thread of its own: a hub that reads a long journal is alive, too."""
        while not self._over.wait(self._beat_s):
            try:
                with self._database.unguarded() as connection:
                    own = LEADERSHIP.c.term == self._term
                    beat = update(LEADERSHIP).where(own).values(beat=LEADERSHIP.c.beat + 1)
                    if connection.execute(beat).rowcount == 1:
                        continue
                    reign = _reign(connection)
            except SQLAlchemyError:
                continue  # nobody sees a silence while the database is away
            self._deposed(reign)
            return

    def _deposed(self, reign: Reign) -> Deposed:
        deposed = Deposed(
            f"{reign.holder or 'another hub'} leads the database {self._database} since term {reign.term}; "
            f"this hub led term {self._term}, and does nothing any more"
        )
        self._database.end(deposed)
        return deposed


def origin(database: Database) -> str:
    """Return what tells this database from all others."""
    with database.transaction() as connection:
        return str(connection.execute(select(LEADERSHIP.c.origin)).scalar_one())


def _reign(connection: Connection) -> Reign:
    columns = (LEADERSHIP.c.holder, LEADERSHIP.c.term, LEADERSHIP.c.beat)
    row = connection.execute(select(*columns)).one()
    return Reign(row.holder, row.term, row.beat)
