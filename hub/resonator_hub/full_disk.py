"""A disk that takes no more: nobody's fault but the disk's, and no news of a job."""

from __future__ import annotations

import errno

from resonator.errors import ResonatorError

_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


class DiskUnusable(ResonatorError):
    """What must be kept cannot be written: the hub ends, and a new life of it goes on where this one was."""


def unusable(error: Exception) -> DiskUnusable | None:
    """Return what a failure says of the disk, None where it has another cause."""
    if isinstance(error, OSError) and error.errno in _NUMBERS:
        where = f" {error.filename}" if error.filename else ""
        return DiskUnusable(f"the hub's disk cannot be written{where}: {error.strerror}")
    return None
