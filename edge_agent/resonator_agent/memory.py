"""What an agent must remember between its lives: sessions, highest epoch, the window that was open."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from resonator.errors import InputInvalid
from resonator.messages import Count, Epoch


class _Memory(BaseModel):
    model_config = ConfigDict(extra="forbid")

    session: Count = 0
    epoch: Epoch = 0
    open_job: str | None = None


class Memory:
    """A state directory, held by one agent at a time; raises InputInvalid when it cannot be used."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = open(folder / "lock", "a")  # noqa: SIM115 - held open as long as the agent lives
        except OSError as error:
            raise InputInvalid(f"the state directory {folder} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise InputInvalid(
                f"another agent is using the state directory {folder}; give this one its own with --state"
            ) from None
        self._path = folder / "agent.json"
        self._memory = self._read()

    @property
    def epoch(self) -> int:
        """The highest epoch ever accepted."""
        return self._memory.epoch

    @property
    def interrupted(self) -> tuple[int, str] | None:
        """The epoch and job of a window that was open when the last life ended, or None."""
        job = self._memory.open_job
        return None if job is None else (self._memory.epoch, job)

    def next_session(self, wall_clock_s: float) -> int:
        """Begin a session, for good; its number is higher than any before.

        It follows the wall clock where that runs ahead, so that a box whose disk was wiped starts
        above its former life.
        """
        self._memory.session = max(self._memory.session + 1, int(wall_clock_s))
        self._write()
        return self._memory.session

    def store_window(self, epoch: int, job: str | None) -> None:
        """Remember for good the highest epoch, and the job whose window is open."""
        self._memory.epoch = epoch
        self._memory.open_job = job
        self._write()

    def release(self) -> None:
        """Let another agent use the directory."""
        self._lock.close()

    def _read(self) -> _Memory:
        try:
            return _Memory.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return _Memory()
        except (OSError, ValidationError):
            self.release()
            raise InputInvalid(
                f"{self._path} is damaged; without it the agent cannot know which windows are over. "
                "Remove the file only when no hub holds a window on this device"
            ) from None

    def _write(self) -> None:
        fresh = self._path.with_suffix(".new")
        with open(fresh, "w") as file:
            file.write(self._memory.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self._path)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
