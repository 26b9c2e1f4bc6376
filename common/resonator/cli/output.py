"""How results are written: JSON for machines, numbers as people say them, and files where there is room."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import to_json
from rich.console import Console

from resonator.errors import InputInvalid

_FILE_WIDTH = 200
"""Columns of a table that goes to a file or a pipe, where nothing is to be folded."""

Printable = BaseModel | Mapping[str, object] | Sequence[BaseModel]


def console() -> Console:
    """Make a console on stdout, as wide as the terminal, or wide enough for a pipe."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=_FILE_WIDTH)


def check_place(output: Path) -> None:
    """See to it, before long work, that a file can be written to `output`; raises `InputInvalid`."""
    if output.is_dir():
        raise InputInvalid(f"-o {output} is a folder; name a file, such as {output / 'bundle.tar'}")
    check_folder(output.parent)


def check_folder(folder: Path) -> None:
    """See to it that a folder is there and can be written to; raises `InputInvalid`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputInvalid(f"nothing can be written to {folder}: {error.strerror}") from None


def print_json(value: Printable) -> None:
    """Write one JSON value as one line on stdout; numbers that are not finite become null."""
    plain = json.loads(to_json(value, bytes_mode="base64", inf_nan_mode="null"))
    # In ASCII, which every terminal and every locale can take.
    sys.stdout.write(json.dumps(plain, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def latency(seconds: float | None) -> str:
    """Write a latency: `1.234 ms`, `56.7 µs`, or `-` where there is none."""
    if seconds is None:
        return "-"
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 1.0:
            return f"{seconds * factor:.4g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def duration(seconds: float) -> str:
    """Write how long something took: `42 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def energy(joules: float | None) -> str:
    """Write an amount of energy: `12.3 J`, `4.56 kJ`, or `-` where it is not known."""
    if joules is None:
        return "-"
    for factor, unit in ((1e6, "MJ"), (1e3, "kJ")):
        if joules >= factor:
            return f"{joules / factor:.3g} {unit}"
    return f"{joules:.3g} J"


def size(count: int) -> str:
    """Write a number of bytes: `1.5 MiB`."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.4g} {unit}"
        amount /= 1024
    return f"{amount:.4g} TiB"
