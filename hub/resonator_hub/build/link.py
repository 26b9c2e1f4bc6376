"""Links object files into a shared library with `ld` alone: 4 ms, and no compiler driver."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from resonator.errors import ResonatorError

LINK_TIMEOUT_S = 60.0


class LinkerMissing(ResonatorError):
    """This machine has no linker for the target; the sentence says what to install."""


class LinkFailed(ResonatorError):
    """The linker refused the object files; the sentence is its complaint."""


def link(output: Path, objects: Sequence[Path], target: str) -> None:
    """Link `objects`, compiled for `target` (JSON of a TVM target), into the shared library `output`.

    Raises `LinkerMissing` and `LinkFailed`.
    """
    command = [_linker(_triple(target)), "-shared", "-o", str(output), *map(str, objects)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LINK_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise LinkFailed(f"The linker did not finish in {LINK_TIMEOUT_S:.0f} s.") from None
    if done.returncode != 0:
        raise LinkFailed(f"The linker failed: {done.stderr.strip() or f'exit status {done.returncode}'}")


def programs() -> list[Path]:
    """Return every linker of this machine, by its path: all that a worker ever needs to start."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    names = ("ld", "ld.lld", "*-ld")
    return [found for folder in folders for name in names for found in Path(folder).glob(name)]


def _triple(target: str) -> str:
    """Return the target's `mtriple`, or an empty string for this machine's own."""
    if not target.lstrip().startswith("{"):
        return ""
    return str(json.loads(target).get("mtriple", ""))


def _linker(triple: str) -> str:
    architecture = triple.partition("-")[0]
    foreign = architecture not in ("", platform.machine())
    names = [f"{triple}-ld", "ld.lld"] if foreign else ["ld", "ld.lld"]
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    wanted = "lld (ld.lld)" if foreign else "binutils (ld)"
    raise LinkerMissing(f"No linker for {triple or 'this machine'} is installed here; install {wanted}.")
