"""A disk that takes no more: nobody's fault but the disk's, and no news of a job or a kernel."""

from __future__ import annotations

import errno
import sqlite3

from resonator.errors import ResonatorError

_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


class DiskUnusable(ResonatorError):
    """What must be kept cannot be written: this process ends, and its next life goes on where it was."""


def unusable(error: BaseException) -> DiskUnusable | None:
    """Return what a failure says of the disk, None where it has another cause."""
    if isinstance(error, OSError) and error.errno in _NUMBERS:
        where = f" at {error.filename}" if error.filename else ""
        return DiskUnusable(f"the disk cannot be written{where}: {error.strerror}")
    if isinstance(error, sqlite3.OperationalError) and "disk" in str(error):
        return DiskUnusable(f"the disk cannot be written: {error}")
    return None
