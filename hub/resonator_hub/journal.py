"""The append-only log of scheduler events: what the hub knows after kill -9, and what `replay` tells."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TypeVar

from sqlalchemy import func, insert, select

from resonator.errors import ResonatorError
from resonator_hub.database import Database, Write
from resonator_hub.scheduler.events import Event, from_json, to_json
from resonator_hub.tables import EVENTS

JOURNAL = "hub.db"
"""What the journal is called in a state directory."""
_PAGE = 1000
E = TypeVar("E", bound=Event)


class JournalUnreadable(ResonatorError):
    """The journal holds an event that this version does not know."""


class Journal:
    """Events by their sequence number, from 1; an appended one is on disk before `append` returns."""

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
        with self._database.transaction() as connection:
            for event, also in entries:
                if also is not None:
                    also(connection)
                row = {"at": event.at, "name": type(event).__name__, "body": to_json(event).decode()}
                seq = connection.execute(insert(EVENTS).values(row)).inserted_primary_key
        assert seq is not None
        return int(seq[0])

    def events(self, kinds: Collection[type[object]] = ()) -> Iterator[Event]:
        """Yield every event in order, or those of some kinds alone; raises JournalUnreadable."""
        last = 0
        while rows := self._page(last, [kind.__name__ for kind in kinds]):
            yield from (_read(*row) for row in rows)
            last = rows[-1][0]

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
        with self._database.transaction() as connection:
            return float(connection.execute(select(func.max(EVENTS.c.at))).scalar() or 0.0)

    def _page(self, after: int, names: list[str]) -> list[tuple[int, str, str]]:
        query = select(EVENTS.c.seq, EVENTS.c.name, EVENTS.c.body).where(EVENTS.c.seq > after)
        if names:
            query = query.where(EVENTS.c.name.in_(names))
        with self._database.transaction() as connection:
            rows = connection.execute(query.order_by(EVENTS.c.seq).limit(_PAGE))
            return [(int(row.seq), str(row.name), str(row.body)) for row in rows]


def _read(seq: int, name: str, body: str) -> Event:
    try:
        return from_json(name, body)
    except (KeyError, ValueError) as error:
        raise JournalUnreadable(
            f"event {seq} of the journal, a {name}, is not known to this version of the hub"
        ) from error
