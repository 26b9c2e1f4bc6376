"""The append-only log of scheduler events: what the hub knows after kill -9, and what `replay` tells.

What a snapshot knows need not be folded again (`resonator_hub.snapshots`): in time such events are forgotten,
but for what people did and by which rules.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence
from operator import itemgetter
from typing import Any, TypeVar, get_args

from sqlalchemy import Connection, Select, delete, func, insert, select

from resonator.errors import ResonatorError
from resonator_hub.database import JOURNAL, Database, Write
from resonator_hub.scheduler.events import Deed, Event, HubStarted, from_json, to_json
from resonator_hub.tables import EVENTS

__all__ = ["JOURNAL", "Journal", "JournalUnreadable"]
_KEPT = sorted(kind.__name__ for kind in (*get_args(Deed), HubStarted))
"""The kinds of events that are kept for ever: who asks for them may ask years later."""
_PAGE = 1000
_Row = tuple[int, str, str]
_INSERT, _LATEST = insert(EVENTS), select(func.max(EVENTS.c.seq))
E = TypeVar("E", bound=Event)


class JournalUnreadable(ResonatorError):
    """The journal holds an event that this version does not know."""


class Journal:
    """Events by their sequence number, which grows from 1; PostgreSQL leaves gaps where something was undone.

    An appended event is on disk before `append` returns.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, event: Event, also: Write | None = None) -> int:
        """Keep an event, together with what `also` writes or not at all; return its sequence number."""
        return self.append_all([(event, also)])

    def append_all(self, entries: Sequence[tuple[Event, Write | None]]) -> int:
        """Keep events and what is written along with each, all or nothing; return the last one's number.

        The disk is waited for once, however many they are.
        """
        assert entries, "there is something to keep"
        rows = [
            {"at": event.at, "name": type(event).__name__, "body": to_json(event).decode()}
            for event, _ in entries
        ]

        def work(connection: Connection) -> int:
            for _, also in entries:
                if also is not None:
                    also(connection)
            connection.execute(_INSERT, rows)
            return int(connection.execute(_LATEST).scalar_one())

        return self._database.write(work)

    def events(self, kinds: Collection[type[object]] = (), *, after: int = 0) -> Iterator[Event]:
        """Yield the events behind a sequence number in order, all or those of some kinds alone.

        Raises JournalUnreadable.
        """
        rows = [self._rows(after, kind.__name__) for kind in kinds] or [self._rows(after)]
        return (_read(*row) for row in heapq.merge(*rows, key=itemgetter(0)))

    def of(self, kind: type[E]) -> Iterator[E]:
        """Yield the events of a kind in order; raises JournalUnreadable."""
        for event in self.events((kind,)):
            assert isinstance(event, kind), "events are kept under the names of their kinds"
            yield event

    def length(self) -> int:
        """Return the sequence number of the latest event; 0 when there is none."""
        with self._database.transaction() as connection:
            return int(connection.execute(select(func.max(EVENTS.c.seq))).scalar() or 0)

    def last_at(self) -> float:
        """Return the time of the latest event, in seconds since the epoch; 0 when there is none."""
        latest = select(EVENTS.c.at).order_by(EVENTS.c.seq.desc()).limit(1)
        with self._database.transaction() as connection:
            return float(connection.execute(latest).scalar() or 0.0)

    def forget(self, after: int, before: int, most: int) -> Sequence[int]:
        """Forget up to `most` events between two sequence numbers, but what is kept for ever; return theirs.

        The latest event always stays, so that no number is given twice.
        """
        dispensable = EVENTS.c.seq.between(after + 1, before - 1) & EVENTS.c.name.not_in(_KEPT)
        first = select(EVENTS.c.seq).where(dispensable).order_by(EVENTS.c.seq).limit(most)

        def work(connection: Connection) -> Sequence[int]:
            numbers = connection.execute(first).scalars().all()
            if numbers:
                connection.execute(delete(EVENTS).where(dispensable, EVENTS.c.seq <= numbers[-1]))
            return numbers

        return self._database.write(work)

    def _rows(self, after: int, name: str | None = None) -> Iterator[_Row]:
        query = select(EVENTS.c.seq, EVENTS.c.name, EVENTS.c.body).order_by(EVENTS.c.seq).limit(_PAGE)
        if name is not None:
            query = query.where(EVENTS.c.name == name)
        while rows := self._page(query.where(EVENTS.c.seq > after)):
            yield from rows
            after = rows[-1][0]

    def _page(self, query: Select[Any]) -> list[_Row]:
        with self._database.transaction() as connection:
            return [(int(seq), str(name), str(body)) for seq, name, body in connection.execute(query)]


def _read(seq: int, name: str, body: str) -> Event:
    try:
        return from_json(name, body)
    except (KeyError, ValueError) as error:
        raise JournalUnreadable(
            f"event {seq} of the journal, a {name}, is not known to this version of the hub"
        ) from error
