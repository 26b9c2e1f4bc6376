"""Small disks of our own, that can be filled to the last byte."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

_FILLER = "filler"


class SmallDisk:
    """A tmpfs of so many MiB, mounted at a folder; raises CalledProcessError where that is not allowed."""

    def __init__(self, folder: Path, size_mib: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)]
        subprocess.run(command, check=True, capture_output=True)

    def fill(self) -> None:
        """Take all the room that is left."""
        with open(self.folder / _FILLER, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(2**16)):
                pass

    def free(self) -> None:
        """Give the room back."""
        (self.folder / _FILLER).unlink(missing_ok=True)

    def unmount(self) -> None:
        """Take the disk away."""
        subprocess.run(["umount", "--lazy", self.folder], check=True)


@contextlib.contextmanager
def small_disk(folder: Path, size_mib: int) -> Iterator[SmallDisk | None]:
    """A small disk for the length of a block; None where nobody may mount one.

    What a full disk does to each part is shown without a mount, too: `tests/unit/test_full_disk.py`.
    """
    try:
        disk = SmallDisk(folder, size_mib)
    except (subprocess.CalledProcessError, FileNotFoundError):
        yield None
        return
    try:
        yield disk
    finally:
        disk.unmount()
