"""Documentation that is run as it is printed: its commands, a network of its own, and what was said."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

PATIENCE_S = 240.0
DOCS = Path(__file__).parents[2] / "docs"
_ALONE = ("unshare", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""A network, mounts and processes of their own: ports and names as printed, and nothing outlives the test."""


def blocks(document: str) -> list[str]:
    """Return the commands of a document, block by block."""
    return re.findall(r"```sh\n(.*?)```", (DOCS / document).read_text(), re.DOTALL)


def alone() -> Sequence[str]:
    """Return what runs a command in a network of its own; nothing where the machine allows none."""
    allowed = shutil.which(_ALONE[0]) and os.spawnvp(os.P_WAIT, _ALONE[0], [*_ALONE, "true"]) == 0
    return _ALONE if allowed else ()


async def run(command: Sequence[str], home: Path) -> str:
    """Run a command at home in an empty folder; return all that was said."""
    programs = Path(sys.executable).parent
    environment = {
        "HOME": str(home),
        "PATH": f"{programs}:{os.environ['PATH']}:/usr/sbin",
        "USER": "root",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    said = home / "said"  # a file, because what goes on in the background holds on to it
    with said.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=home,
            env=environment,
            stdout=file,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        code = await asyncio.wait_for(process.wait(), PATIENCE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    assert code == 0, said.read_text()
    return said.read_text()


def refusals(said: str) -> list[str]:
    """Return the lines that tell of refused messages; a repetition that comes late is nobody's fault."""
    return [
        line for line in said.splitlines() if "message refused" in line and "why='stale epoch'" not in line
    ]
