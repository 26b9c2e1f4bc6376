"""Whether a state directory can be written, is fast enough, and has room."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from resonator.doctor.finding import Finding, failed, ok, warning

LEAST_BYTES, FEW_BYTES = 256 * 2**20, 2 * 2**30
FEW_INODES = 10_000
SLOW_S = 0.1
"""A commit waits for the disk: at this rate there are ten of them a second."""
_GIB = 2**30


def look_at_disk(name: str, folder: Path) -> list[Finding]:
    """Examine where something keeps its state; a file without a name is written there, and is gone again."""
    if not folder.is_dir():
        return [
            failed(
                name, f"{folder} is not there", "name the right folder, or start what keeps its state there"
            )
        ]
    try:
        took_s = _sync(folder)
    except OSError as error:
        advice = f"see who owns {folder}, whether its disk is full or mounted read-only"
        return [failed(name, f"nothing can be written to {folder}: {error.strerror}", advice)]
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    has = f"{folder} has {free / _GIB:.1f} GiB free"
    if free < LEAST_BYTES:
        return [failed(name, has, "make room: without it nothing is accepted and results are lost")]
    if free < FEW_BYTES:
        return [warning(name, has, "make room before it is full")]
    if space.f_files > 0 and space.f_favail < FEW_INODES:
        return [
            warning(
                name, f"{folder} has room for {space.f_favail} more files", "remove small files (`df -i`)"
            )
        ]
    if took_s > SLOW_S:
        says = f"{has}; a write takes {took_s * 1e3:.0f} ms to be on disk"
        return [warning(name, says, "use a faster disk, or find out who else keeps it busy")]
    return [ok(name, f"{has}, a write is on disk in {took_s * 1e3:.1f} ms")]


def _sync(folder: Path) -> float:
    """Return how long a small write takes to be on disk, in seconds."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(4096))
        began = time.perf_counter()
        file.flush()
        os.fsync(file.fileno())
        return time.perf_counter() - began
