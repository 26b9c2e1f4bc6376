"""Blobs by digest: a directory that keeps them, and the answer to whoever asks for a piece of one."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Protocol

from resonator.errors import InputInvalid, ResonatorError, Unreachable
from resonator.messages import BlobAbsent, BlobChunk, BlobRequest

_DIGEST = re.compile(r"[0-9a-f]{64}")


class BlobMissing(ResonatorError):
    """The store does not have that blob, or not any more."""


def digest_of(data: bytes) -> str:
    """Return the name of `data`: its SHA-256 in 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


class BlobsUnreachable(Unreachable):
    """Where blobs are kept could not be reached, or did not do as asked; later it may."""


class Blobs(Protocol):
    """Bytes by their digest, each there whole or not at all, wherever they are kept.

    Every method raises InputInvalid for what is no digest, and BlobsUnreachable.
    """

    def near(self, digest: str) -> bool:
        """Whether reading the blob takes no longer than a disk does; one that is not there may be near."""

    def partial_path(self, digest: str) -> Path:
        """Return the file on this machine in which a blob grows until it is complete."""

    def has(self, digest: str) -> bool:
        """Whether the blob is there."""

    def put(self, data: bytes) -> str:
        """Keep `data` and return its digest."""

    def adopt(self, file: Path, digest: str) -> None:
        """Make `file` of this machine, written whole and verified by the caller, the blob `digest`."""

    def get(self, digest: str) -> bytes:
        """Return the blob, verified; raises BlobMissing, also for a damaged one, which is then removed."""

    def read(self, digest: str, offset: int, length: int) -> tuple[bytes, int]:
        """Return (up to `length` bytes from `offset` on, the blob's size), unverified; raises BlobMissing."""

    def delete(self, digest: str) -> None:
        """Remove the blob, if it is there."""


class BlobStore:
    """Bytes by their digest, in files `aa/aabbcc...` under `directory`, readable by their owner alone.

    A blob is there whole or not at all, also after a loss of power, unless the store is not `lasting`: then
    nothing waits for the disk. Every method raises InputInvalid for what is no digest.
    """

    def __init__(self, directory: Path, *, lasting: bool = True) -> None:
        self._directory = directory
        self._lasting = lasting
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def near(self, digest: str) -> bool:
        """Whether reading the blob takes no longer than a disk does: yes."""
        return True

    def path(self, digest: str) -> Path:
        """Return the file of the blob, whether or not it is there."""
        return self._directory / _checked(digest)[:2] / digest

    def partial_path(self, digest: str) -> Path:
        """Return the file in which a blob grows until it is complete."""
        return self._directory / "partial" / _checked(digest)

    def has(self, digest: str) -> bool:
        """Whether the blob is there."""
        return self.path(digest).is_file()

    def put(self, data: bytes) -> str:
        """Keep `data` and return its digest."""
        digest = digest_of(data)
        if not self.has(digest):
            folder = self._directory / "partial"
            folder.mkdir(mode=0o700, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=folder, prefix="put-")
            try:
                with open(handle, "wb") as file:
                    file.write(data)
                self.adopt(Path(name), digest)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        return digest

    def adopt(self, file: Path, digest: str) -> None:
        """Make `file`, written whole and verified by the caller, the blob `digest`."""
        target = self.path(digest)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        file.chmod(0o600)
        if self._lasting:
            _sync(file)
        file.replace(target)
        if self._lasting:
            _sync(target.parent)

    def get(self, digest: str) -> bytes:
        """Return the blob, verified; raises BlobMissing, also for a damaged one, which is then removed."""
        try:
            data = self.path(digest).read_bytes()
        except FileNotFoundError:
            raise BlobMissing(f"blob {digest} is not in {self._directory}") from None
        if digest_of(data) != digest:
            self.delete(digest)
            raise BlobMissing(f"blob {digest} was damaged on disk and has been removed")
        return data

    def read(self, digest: str, offset: int, length: int) -> tuple[bytes, int]:
        """Return (up to `length` bytes from `offset` on, the blob's size), unverified; raises BlobMissing."""
        try:
            with open(self.path(digest), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(offset)
                return file.read(length), size
        except FileNotFoundError:
            raise BlobMissing(f"blob {digest} is not in {self._directory}") from None

    def delete(self, digest: str) -> None:
        """Remove the blob, if it is there."""
        self.path(digest).unlink(missing_ok=True)


def serve(store: Blobs, request: BlobRequest) -> BlobChunk | BlobAbsent:
    """Answer one request out of `store`; the puller verifies, so this does not."""
    try:
        data, total = store.read(request.digest, request.offset, request.length)
    except BlobMissing:
        return BlobAbsent(digest=request.digest)
    return BlobChunk(digest=request.digest, offset=request.offset, total=total, data=data)


def _checked(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise InputInvalid(f"blob {digest[:80]!r} is no digest; write 64 lower-case hexadecimal digits")
    return digest


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
