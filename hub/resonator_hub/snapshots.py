"""What the hub knew at some moments, so that no start has to fold the journal from its beginning.

A snapshot holds the scheduler's state and the results that were asked for; jobs that have ended are kept in a
table of their own, once, however many snapshots know of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from math import inf
from operator import attrgetter

import msgpack
import structlog
from sqlalchemy import Connection, delete, insert, inspect, select, update

from resonator.ids import JobId
from resonator_hub.database import Database
from resonator_hub.journal import JournalUnreadable
from resonator_hub.scheduler import Scheduler
from resonator_hub.scheduler.commands import Command, Profile, Report
from resonator_hub.scheduler.ended import EndedJob
from resonator_hub.scheduler.snapshot import SnapshotUnreadable
from resonator_hub.tables import ENDED_JOBS, SNAPSHOTS

log = structlog.get_logger(__name__)
DAY_S = 86_400.0
_SPARE = 2
"""So many of the latest snapshots are kept, in case that one cannot be read."""
_NAMES = tuple(one.name for one in fields(Profile))
_values = attrgetter(*_NAMES)


@dataclass(frozen=True)
class Moment:
    """What was `asked` for when the event `seq` had been taken, at `at` (s), and the jobs that had ended.

    Without a number it is before all events.
    """

    seq: int = 0
    at: float = 0.0
    asked: tuple[Profile, ...] = ()
    ended: tuple[JobId, ...] = ()

    def past(self) -> Iterator[Command]:
        """Yield the commands of the past that somebody may have to know of, as a fold would give them."""
        yield from self.asked
        for job in self.ended:
            yield Report(job, ended=True)


class Snapshots:
    """The snapshots in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ended = 0

    def keep(self, moment: Moment, scheduler: Scheduler) -> None:
        """Put down what a scheduler knows at a moment."""
        known, new = self._ended, list(scheduler.ended(self._ended))
        row = {
            "seq": moment.seq,
            "at": moment.at,
            "ended": known + len(new),
            "first": False,
            "body": msgpack.packb([scheduler.save(), _pack(moment.asked)]),
        }

        def work(connection: Connection) -> None:
            connection.execute(delete(ENDED_JOBS).where(ENDED_JOBS.c.number > known))
            if new:
                connection.execute(insert(ENDED_JOBS), _numbered(new, known + 1))
            connection.execute(delete(SNAPSHOTS).where(SNAPSHOTS.c.seq == moment.seq))
            connection.execute(insert(SNAPSHOTS).values(row))

        self._database.write(work)
        self._ended = known + len(new)

    def latest(self, scheduler: Scheduler) -> Moment:
        """Put a scheduler in its latest state that can be read; raises JournalUnreadable when none can.

        Where no event is forgotten yet it stays as it is instead: it can fold them all.
        """
        rows = self._rows()
        for seq, _ in reversed(rows):
            if (moment := self._try(seq, scheduler)) is not None:
                return moment
        if any(first for _, first in rows):
            raise JournalUnreadable(
                f"the journal begins with a snapshot, and none of {len(rows)} can be read by this version of "
                "the hub; start it with the version that it ran with before"
            )
        return Moment()

    def first(self, scheduler: Scheduler) -> Moment:
        """Put a scheduler in the state from which all events are kept; raises SnapshotUnreadable."""
        for seq, first in self._rows():
            if first:
                return self._restore(seq, scheduler)
        return Moment()

    def begin(self, since: float) -> int:
        """Have the journal begin with the latest snapshot from before a time; return the number of its event.

        Returns 0 when there is none. Of the other snapshots one a day is kept, and the latest.
        """

        def work(connection: Connection) -> int:
            rows = connection.execute(select(SNAPSHOTS.c.seq, SNAPSHOTS.c.at).order_by(SNAPSHOTS.c.seq))
            taken = {int(seq): float(at) for seq, at in rows}
            kept = needed(list(taken.items()), since)
            connection.execute(delete(SNAPSHOTS).where(SNAPSHOTS.c.seq.not_in(kept)))
            if not kept or taken[kept[0]] > since:
                return 0
            connection.execute(update(SNAPSHOTS).values(first=SNAPSHOTS.c.seq == kept[0]))
            return kept[0]

        return self._database.write(work)

    def _rows(self) -> list[tuple[int, bool]]:
        with self._database.transaction() as connection:
            if not inspect(connection).has_table(SNAPSHOTS.name):
                return []  # a journal of an earlier version that is only looked at
            rows = connection.execute(select(SNAPSHOTS.c.seq, SNAPSHOTS.c.first).order_by(SNAPSHOTS.c.seq))
            return [(int(seq), bool(first)) for seq, first in rows]

    def _try(self, seq: int, scheduler: Scheduler) -> Moment | None:
        try:
            return self._restore(seq, scheduler)
        except SnapshotUnreadable as error:
            log.warning("an earlier snapshot has to do", unreadable=seq, reason=str(error))
            return None

    def _restore(self, seq: int, scheduler: Scheduler) -> Moment:
        with self._database.transaction() as connection:
            row = connection.execute(select(SNAPSHOTS).where(SNAPSHOTS.c.seq == seq)).one()
            jobs = select(ENDED_JOBS).where(ENDED_JOBS.c.number <= row.ended).order_by(ENDED_JOBS.c.number)
            ended = [EndedJob(JobId(one.job), one.bundle, one.status) for one in connection.execute(jobs)]
        try:
            state, asked = msgpack.unpackb(row.body)
            moment = Moment(seq, float(row.at), _unpack(asked), tuple(one.job for one in ended))
        except (msgpack.UnpackException, zlib.error, ValueError, TypeError) as error:
            raise SnapshotUnreadable(f"the snapshot cannot be read: {error}") from error
        if len(ended) != row.ended:
            raise SnapshotUnreadable(f"of {row.ended} jobs that had ended {len(ended)} are kept")
        scheduler.restore(state, ended)
        self._ended = len(ended)
        return moment


def needed(taken: Sequence[tuple[int, float]], since: float) -> list[int]:
    """Return which of the snapshots (number and time, oldest first) are to be kept."""
    past = sum(at <= since for _, at in taken)
    rest, kept, last = taken[max(0, past - 1) :], [], -inf
    for index, (seq, at) in enumerate(rest):
        if at >= last + DAY_S or index >= len(rest) - _SPARE:
            kept.append(seq)
            last = at
    return kept


def _numbered(jobs: Sequence[EndedJob], first: int) -> list[dict[str, object]]:
    return [
        {"number": number, "job": one.job, "bundle": one.bundle, "status": one.status}
        for number, one in enumerate(jobs, first)
    ]


def _pack(asked: Iterable[Profile]) -> bytes:
    return zlib.compress(msgpack.packb([_NAMES, [_values(one) for one in asked]]), 1)


def _unpack(data: bytes) -> tuple[Profile, ...]:
    names, rows = msgpack.unpackb(zlib.decompress(data))
    return tuple(Profile(**dict(zip(names, row, strict=True))) for row in rows)
