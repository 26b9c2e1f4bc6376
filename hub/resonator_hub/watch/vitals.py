"""Whether the database takes writes, how large it is, and what room is left: looked at now and then."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, false, text, update
from sqlalchemy.exc import SQLAlchemyError

from resonator_hub.database import Database
from resonator_hub.tables import EVENTS

EVERY_S = 10.0
PATIENCE_S = 5.0
"""How long the database may take to answer before it counts as stuck."""


@dataclass(frozen=True)
class Signs:
    """What was found last; `trouble` says in a sentence why nothing can be written, empty where it can."""

    trouble: str = "the database was not looked at yet"
    database_bytes: int | None = None
    disk_free_bytes: int | None = None


class Vitals:
    """Looks at the database and at the state directory every few seconds, in a thread."""

    def __init__(self, database: Database, state: Path) -> None:
        self._database = database
        self._state = state
        self.signs = Signs()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Look once."""
        looking = asyncio.ensure_future(asyncio.to_thread(self._look))
        done, _ = await asyncio.wait({looking}, timeout=PATIENCE_S)
        if not done:
            self.signs = Signs(f"the database has not answered for {PATIENCE_S:g} s")
        self.signs = await looking

    def _look(self) -> Signs:
        free: int | None = None
        try:
            free = shutil.disk_usage(self._state).free
            with self._database.unguarded() as connection:
                # No row is changed, but it takes what writing does: the lock, and a database open to it.
                connection.execute(update(EVENTS).where(false()).values(seq=EVENTS.c.seq))
                return Signs("", _bytes(connection), free)
        except OSError as error:
            return Signs(f"the state directory cannot be used: {error.strerror}")
        except SQLAlchemyError as error:
            return Signs(f"the database takes no writes: {getattr(error, 'orig', error)}", None, free)


def _bytes(connection: Connection) -> int:
    """Return what a database takes on disk."""
    if connection.dialect.name == "postgresql":
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
    pages = connection.execute(text("PRAGMA page_count")).scalar_one()
    return int(pages) * int(connection.execute(text("PRAGMA page_size")).scalar_one())
