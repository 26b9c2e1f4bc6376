"""One hub to a state directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from resonator.errors import InputInvalid


class StateLock:
    """Holds a state directory for this process; the lock falls with the process, however it ends.

    Raises InputInvalid when another hub holds it, or when the directory cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = os.open(directory / "hub.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InputInvalid(f"the state directory {directory} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._file, 20).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise InputInvalid(
                f"the state directory {directory} is in use by another hub (process {holder}); "
                "stop that one, or give this one a directory of its own with --state"
            ) from None
        os.truncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let another hub have the directory."""
        os.close(self._file)
