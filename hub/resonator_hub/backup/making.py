"""Making a backup, of a hub that may be running: its rows as they were at one moment, and their blobs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from resonator.bus.blobs import BlobMissing, Blobs
from resonator_hub.backup import rows
from resonator_hub.backup.places import Manifest, Place, sha256
from resonator_hub.database import Database


class Progress(Protocol):
    """Hears how far a piece of work is."""

    def begin(self, what: str, total: int) -> None:
        """Begin a piece of work of so many steps."""

    def advance(self, steps: int) -> None:
        """Go on by so many."""


def back_up(database: Database, blobs: Blobs, place: Place, progress: Progress) -> Manifest:
    """Put a hub's rows and blobs aside, and return what the backup is.

    Blobs that the place has already are not copied again. Blobs are written before the rows that name them,
    and read after these: none is missing, whatever the hub does meanwhile.
    """
    with _dumped(database, progress) as (file, dumped), open(file, "rb") as written:
        manifest = Manifest(
            made_at=time.time(),
            version=version("resonator"),
            revision=dumped.revision,
            counts=dumped.rows,
            rows=sha256(written),
            blobs=_copy(sorted(dumped.digests), blobs, place, progress),
        )
        place.finish(file, manifest)
    return manifest


@contextmanager
def _dumped(database: Database, progress: Progress) -> Iterator[tuple[Path, rows.Dumped]]:
    with tempfile.TemporaryDirectory(prefix="resonator-backup-") as folder:
        file = Path(folder) / "rows"
        with open(file, "wb") as target, database.snapshot() as connection:
            progress.begin("rows", rows.count(connection))
            dumped = rows.dump(connection, target, progress.advance)
        yield file, dumped


def _copy(digests: Iterable[str], blobs: Blobs, place: Place, progress: Progress) -> tuple[str, ...]:
    """Copy those digests that name blobs; others name programs or builds. Return which these are."""
    wanted = list(digests)
    progress.begin("blobs", len(wanted))
    kept = []
    for digest in wanted:
        if place.has(digest):
            kept.append(digest)
        elif (data := _get(blobs, digest)) is not None:
            place.keep(data)
            kept.append(digest)
        progress.advance(1)
    return tuple(kept)


def _get(blobs: Blobs, digest: str) -> bytes | None:
    try:
        return blobs.get(digest) if blobs.has(digest) else None
    except BlobMissing:
        return None  # damaged on the disk: the hub makes it anew, or asks for it again
