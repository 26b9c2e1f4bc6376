"""Who did what: the deeds of people in a hub's journal, by the names in their certificates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import get_args

from rich.table import Table
from typing_extensions import assert_never

from resonator.cli import output
from resonator.errors import InputInvalid
from resonator.jobspec import seconds
from resonator_hub.database import Database
from resonator_hub.journal import Journal
from resonator_hub.scheduler.events import (
    BlobFetched,
    Deed,
    DeviceDrained,
    DeviceUndrained,
    JobCanceled,
    JobSubmitted,
    PartyCertified,
    PartyRevoked,
)

_DEEDS: tuple[type[Deed], ...] = get_args(Deed)
_AUTHORITY = "authority"
"""Who keeps the authority needs no certificate: what it has done is read where it is kept."""


@dataclass(frozen=True)
class Entry:
    """One deed, `at` in seconds since the epoch; where `role` is empty nobody signed it."""

    at: float
    by: str
    role: str
    deed: str
    what: str
    detail: str = ""


def entries(place: Path | str, *, who: str | None = None, since: float = 0.0) -> Iterator[Entry]:
    """Yield what `who` (a whole name or its last part; everybody) did from `since` on, oldest first.

    The journal is in a state directory, a file, or the database of a URL, whether or not its hub is running;
    raises InputInvalid when it is none.
    """
    database = Database.read(place)
    try:
        for event in Journal(database).events(_DEEDS):
            if event.at >= since and isinstance(event, _DEEDS):
                entry = _entry(event)
                if who in (None, entry.by, entry.by.rpartition("/")[2]):
                    yield entry
    finally:
        database.close()


def moment(text: str, now: float) -> float:
    """Read `2h`, `3d`, `2026-11-21` or `2026-11-21T10:00` (local time) as a moment; raises InputInvalid."""
    try:
        ago = seconds(text)
        assert isinstance(ago, float)
        return now - ago
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise InputInvalid(
            f"--since {text!r} is no time: write how long ago (30m, 2h, 7d) or when (2026-11-21T10:00)"
        ) from None


def _entry(event: Deed) -> Entry:
    match event:
        case JobSubmitted():
            ordered = f"{event.order.trials} trials on {event.order.target}"
            return Entry(event.at, event.by, event.role, "submitted", event.job, ordered)
        case JobCanceled():
            return Entry(event.at, event.by, event.role, "canceled", event.job)
        case DeviceDrained():
            return Entry(event.at, event.by, event.role, "drained", event.device, event.reason)
        case DeviceUndrained():
            return Entry(event.at, event.by, event.role, "undrained", event.device)
        case BlobFetched():
            return Entry(event.at, event.by, event.role, "fetched", event.job or "a blob", event.digest)
        case PartyCertified():
            return Entry(event.at, event.party, _AUTHORITY, "was certified", event.serial)
        case PartyRevoked():
            return Entry(event.at, event.by, _AUTHORITY, "revoked", event.party, event.serial)
    assert_never(event)


def print_entries(found: Iterable[Entry], *, as_json: bool) -> None:
    """Print deeds as a table, or as JSON, one object a line."""
    if as_json:
        for entry in found:
            output.print_json({**asdict(entry), "signed": bool(entry.role)})
        return
    table = Table("time", "who", "role", "did", "what", "detail", box=None, header_style="bold")
    for entry in found:
        at = f"{datetime.fromtimestamp(entry.at):%Y-%m-%d %H:%M:%S}"
        table.add_row(
            at, entry.by or "somebody", entry.role or "not signed", entry.deed, entry.what, entry.detail
        )
    output.console().print(table if table.row_count else "nobody has done anything yet")
