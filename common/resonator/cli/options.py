"""Options that many verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Broker = Annotated[
    str | None,
    typer.Option(
        "--broker", metavar="URL", help="The broker's address [RESONATOR_BROKER].", show_default=False
    ),
]
Site = Annotated[
    str | None,
    typer.Option(
        "--site", metavar="SITE", help="The site of hub and devices [RESONATOR_SITE].", show_default=False
    ),
]
Identity = Annotated[
    Path | None,
    typer.Option(
        "--identity",
        metavar="DIR",
        help="Your key and certificate, for a broker of mqtts:// [RESONATOR_IDENTITY].",
        show_default=False,
    ),
]
Insecure = Annotated[
    bool,
    typer.Option("--insecure", help="Speak without TLS to a broker on another machine [RESONATOR_INSECURE]."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for machines.")]
JsonLog = Annotated[bool, typer.Option("--json", help="Log one JSON object a line, for machines.")]
JobArgument = Annotated[str, typer.Argument(metavar="ID", help="The job's id, or the beginning of it.")]
BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle, as `fetch` writes it.")]
