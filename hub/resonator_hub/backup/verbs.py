"""The verbs `resonator backup` and `resonator restore`."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from resonator.bus.blobs import Blobs
from resonator.cli import output
from resonator.cli.options import Json
from resonator_hub import backup as backups
from resonator_hub import settings
from resonator_hub.backup.places import Manifest, place
from resonator_hub.database import Database
from resonator_hub.settings import HubSettings
from resonator_hub.shared_blobs import open_blobs

State = Annotated[Path | None, typer.Option(metavar="DIR", help="The hub's state directory.")]
DatabaseUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="The hubs' shared database [RESONATOR_DATABASE_URL].")
]
BlobsAt = Annotated[
    str | None, typer.Option(metavar="DIR|URL", help="Where blobs are kept, if not in the state directory.")
]


def backup(
    where: Annotated[
        Path, typer.Argument(metavar="DIR|FILE.tar", help="A folder to add to, or a new tar file.")
    ],
    state: State = None,
    database: DatabaseUrl = None,
    blobs: BlobsAt = None,
    as_json: Json = False,
) -> None:
    """Put aside what a hub knows, its blobs included, whether or not it is running."""
    chosen = settings.load(state=state, database_url=database, blobs=blobs)
    url = chosen.database_url
    source = Database.read(chosen.state if url is None else url.get_secret_value())
    with (
        contextlib.closing(source),
        contextlib.closing(place(where)) as target,
        _blobs(chosen) as kept,
        _bars() as bars,
    ):
        manifest = backups.back_up(source, kept, target, bars)
    _tell(f"{source} is put aside in {where}", manifest, as_json=as_json)


def restore(
    where: Annotated[Path, typer.Argument(metavar="DIR|FILE.tar", help="What `resonator backup` made.")],
    state: State = None,
    database: DatabaseUrl = None,
    blobs: BlobsAt = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is recorded there already.")] = False,
    as_json: Json = False,
) -> None:
    """Take up a backup, in a state directory or a shared database, of either kind whatever it was made of."""
    chosen = settings.load(state=state, database_url=database, blobs=blobs)
    url = None if chosen.database_url is None else chosen.database_url.get_secret_value()
    with contextlib.closing(place(where)) as source, _blobs(chosen) as kept, _bars() as bars:
        manifest = backups.restore(source, chosen.state, url, kept, bars, force=force)
    _tell(f"{where} is restored", manifest, as_json=as_json)


@contextlib.contextmanager
def _blobs(chosen: HubSettings) -> Iterator[Blobs]:
    """Give a hub's blobs; what is kept near of those from elsewhere is the hub's own affair."""
    with tempfile.TemporaryDirectory(prefix="resonator-near-") as near:
        yield open_blobs(chosen.blob_place, Path(near))


class _Bars:
    """Progress on stderr, where there is a terminal."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def begin(self, what: str, total: int) -> None:
        """Begin another bar."""
        self._task = self._bars.add_task(what, total=total)

    def advance(self, steps: int) -> None:
        """Fill the bar further."""
        assert self._task is not None, "a piece of work begins before it goes on"
        self._bars.advance(self._task, steps)


@contextlib.contextmanager
def _bars() -> Iterator[_Bars]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        yield _Bars(bars)


def _tell(what: str, manifest: Manifest, *, as_json: bool) -> None:
    made = datetime.fromtimestamp(manifest.made_at)
    rows = sum(manifest.counts.values())
    if as_json:
        output.print_json({**manifest.model_dump(exclude={"blobs"}), "blobs": len(manifest.blobs)})
    else:
        output.console().print(
            f"{what}: {rows} rows and {len(manifest.blobs)} blobs of {made:%Y-%m-%d %H:%M:%S}"
        )
