"""A blob on its way into a store: a pull, and the file it grows in."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from resonator.bus.pull import Pull
from resonator.failures import Failure, FailureKind
from resonator.messages import BlobAbsent, BlobChunk, BlobRequest

_READ_BYTES = 1 << 20


class Landing(Protocol):
    """Where a blob arrives: a store of blobs, or whoever takes the complete file from there."""

    def has(self, digest: str) -> bool:
        """Whether the blob is there, so that it need not come."""

    def partial_path(self, digest: str) -> Path:
        """Return the file in which a blob grows until it is complete."""

    def adopt(self, file: Path, digest: str) -> None:
        """Take `file`, which is complete and verified."""


class Assembly:
    """Brings blob `digest` of `size` bytes into `store`, going on where an earlier attempt ended.

    For each blob one assembly at a time. Send what `requests()` returns, pass every answer to `accept()`, and
    ask for requests again after each answer and at `wake_at`, until `over`; then either `done`, and the blob
    is in the store, or `failure` says why not.
    """

    def __init__(self, store: Landing, digest: str, size: int) -> None:
        self._store = store
        self._file = store.partial_path(digest)
        self._sha256 = hashlib.sha256()
        self.failure: Failure | None = None
        self.done = store.has(digest)
        self._pull = Pull(digest, size, 0 if self.done else self._resume(size))
        if not self.done and self._pull.complete:
            self._finish()

    @property
    def over(self) -> bool:
        """Whether the blob is in the store, or will not come."""
        return self.done or self.failure is not None

    @property
    def wake_at(self) -> float | None:
        """When to ask for `requests()` again if nothing arrives before; None when it is over."""
        return None if self.over else self._pull.wake_at

    def requests(self, now: float) -> list[BlobRequest]:
        """Return what to ask the peer for at `now` (seconds on a clock that does not go backwards)."""
        if self.over:
            return []
        requests = self._pull.requests(now)
        self.failure = self._pull.failure
        return requests

    def accept(self, answer: BlobChunk | BlobAbsent) -> None:
        """Take an answer from the peer; what does not belong here is ignored."""
        if self.over:
            return
        if data := self._pull.accept(answer):
            self._sha256.update(data)
            with open(self._file, "ab") as file:
                file.write(data)
        self.failure = self._pull.failure
        if self._pull.complete:
            self._finish()

    def _resume(self, size: int) -> int:
        """Prepare the file to append to, and return how many of its bytes can be kept."""
        self._file.parent.mkdir(mode=0o700, exist_ok=True)
        self._file.touch(mode=0o600)
        if self._file.stat().st_size > size:
            self._file.write_bytes(b"")
        with open(self._file, "rb") as file:
            while piece := file.read(_READ_BYTES):
                self._sha256.update(piece)
        return self._file.stat().st_size

    def _finish(self) -> None:
        digest = self._pull.digest
        if self._sha256.hexdigest() == digest:
            self._store.adopt(self._file, digest)
            self.done = True
            return
        self._file.unlink()
        found = self._sha256.hexdigest()
        self.failure = Failure(
            kind=FailureKind.BLOB_CORRUPT, detail=f"blob {digest}: what came has the digest {found}"
        )
