"""Options that the verbs of the authority share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import platformdirs
import typer

from resonator_hub.authority.authority import LIFE, Authority
from resonator_hub.authority.passphrase import passphrase_of

FOLDER = platformdirs.user_state_path("resonator") / "ca"
DAYS = LIFE.days

Folder = Annotated[
    Path,
    typer.Option(
        "--dir", metavar="DIR", envvar="RESONATOR_CA", help="The authority's folder.", show_default=False
    ),
]
Site = Annotated[str, typer.Option(metavar="SITE", envvar="RESONATOR_SITE", help="The party's site.")]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where its identity goes; by default below the authority's folder."),
]
Days = Annotated[int, typer.Option(min=1, max=1825, help="How long the certificate is valid.")]
NAME = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]


@contextmanager
def opened(folder: Path) -> Iterator[Authority]:
    """Hold an authority, its passphrase asked for where it has one."""
    with Authority.open(folder, passphrase_of(folder)) as authority:
        yield authority
