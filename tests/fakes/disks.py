"""Small disks of our own, that can be filled to the last byte."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_FILLER = "filler"


class SmallDisk:
    """A tmpfs of so many MiB, mounted at a folder; whoever unshared the mounts need not unmount it."""

    def __init__(self, folder: Path, size_mib: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", folder], check=True)

    def fill(self) -> None:
        """Take all the room that is left."""
        with open(self.folder / _FILLER, "wb", buffering=0) as file:
            try:
                while file.write(bytes(2**16)):
                    pass
            except OSError:
                pass
            with_room = os.statvfs(self.folder)
            assert with_room.f_bavail < 32, with_room

    def free(self) -> None:
        """Give the room back."""
        (self.folder / _FILLER).unlink(missing_ok=True)

    def unmount(self) -> None:
        """Take the disk away."""
        subprocess.run(["umount", "--lazy", self.folder], check=True)
