"""Blobs on a shared file system or object store, and those used of late on a disk of this machine."""

from __future__ import annotations

import shutil
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from resonator.bus.blobs import BlobMissing, Blobs, BlobStore, digest_of
from resonator_hub.shelf import Shelf

NEAR_BYTES = 2**30
"""How much of a disk blobs from elsewhere may take on this machine."""
_LARGE = 4
"""What is larger than this part of that is not kept near, but read piece by piece."""
_TURNS = 16


def open_blobs(where: str, near: Path) -> Blobs:
    """Return the blobs in a folder, be it shared, or at a URL that fsspec reaches; then `near` is a cache.

    Raises InputInvalid for a URL that cannot be used, BlobsUnreachable where nothing can be kept there.
    """
    if where.startswith("file://"):
        return BlobStore(Path(where.removeprefix("file://")))
    if "://" not in where:
        return BlobStore(Path(where))
    shelf = Shelf(where)
    shelf.probe()
    if near.is_dir():
        for folder in near.glob("[0-9a-f][0-9a-f]"):  # what is partial goes on growing
            shutil.rmtree(folder)
    return SharedBlobs(shelf, BlobStore(near, lasting=False))


class SharedBlobs:
    """Blobs on a shelf, `aa/aabbcc...`: as BlobStore keeps them, so that a folder can be copied to a bucket.

    Those read or written of late are in `near`, which is this store's alone and holds up to `near_bytes`.
    Safe to use from many threads; whatever is not near blocks for as long as the shelf takes.
    """

    def __init__(self, shelf: Shelf, near: BlobStore, near_bytes: int = NEAR_BYTES) -> None:
        self._shelf = shelf
        self._near = near
        self._near_bytes = near_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        """What is near, the least recently used first."""
        self._held = 0
        self._counting = threading.Lock()
        self._turns = [threading.Lock() for _ in range(_TURNS)]

    def near(self, digest: str) -> bool:
        """Whether the blob is on this machine."""
        return self._near.has(digest)

    def partial_path(self, digest: str) -> Path:
        """Return the file on this machine in which a blob grows until it is complete."""
        return self._near.partial_path(digest)

    def has(self, digest: str) -> bool:
        """Whether the blob is there."""
        return self._near.has(digest) or self._shelf.has(_name(digest))

    def put(self, data: bytes) -> str:
        """Keep `data` and return its digest."""
        digest = digest_of(data)
        if not self._near.has(digest):
            self._shelf.put(_name(digest), data)
            self._bring_near(digest, data)
        return digest

    def adopt(self, file: Path, digest: str) -> None:
        """Make `file`, written whole and verified by the caller, the blob `digest`."""
        self._shelf.put_file(_name(digest), file)
        size = file.stat().st_size
        if self._is_large(size):
            file.unlink()
            return
        self._near.adopt(file, digest)
        self._count(digest, size)

    def get(self, digest: str) -> bytes:
        """Return the blob, verified; raises BlobMissing, also for a damaged one, which is then removed."""
        try:
            return self._from_near(digest)
        except BlobMissing:
            return self._fetch(digest)

    def read(self, digest: str, offset: int, length: int) -> tuple[bytes, int]:
        """Return (up to `length` bytes from `offset` on, the blob's size), unverified; raises BlobMissing."""
        try:
            read = self._near.read(digest, offset, length)
        except BlobMissing:
            return self._read_far(digest, offset, length)
        self._count(digest, read[1])
        return read

    def delete(self, digest: str) -> None:
        """Remove the blob, if it is there."""
        self._near.delete(digest)
        with self._counting:
            self._held -= self._sizes.pop(digest, 0)
        self._shelf.delete(_name(digest))

    def _from_near(self, digest: str) -> bytes:
        data = self._near.get(digest)
        self._count(digest, len(data))
        return data

    def _read_far(self, digest: str, offset: int, length: int) -> tuple[bytes, int]:
        size = self._shelf.size(_name(digest))
        end = min(offset + length, size)
        if offset >= end:
            return b"", size
        if self._is_large(size):
            return self._shelf.read(_name(digest), offset, end), size
        return self._fetch(digest)[offset:end], size

    def _fetch(self, digest: str) -> bytes:
        """Return the blob from the shelf, and have it near from now on; asked for at once, it comes once."""
        with self._turns[int(digest[0], _TURNS)]:
            try:
                return self._from_near(digest)
            except BlobMissing:
                data = self._shelf.get(_name(digest))
            if digest_of(data) != digest:
                self.delete(digest)
                raise BlobMissing(f"blob {digest} was damaged in {self._shelf.shown} and has been removed")
            self._bring_near(digest, data)
            return data

    def _is_large(self, size: int) -> bool:
        return size > self._near_bytes // _LARGE

    def _bring_near(self, digest: str, data: bytes) -> None:
        if not self._is_large(len(data)):
            with suppress(OSError):  # where this disk is full, it is read from afar
                self._near.put(data)
                self._count(digest, len(data))

    def _count(self, digest: str, size: int) -> None:
        """Note that a blob was used, and let go of what was not for longest."""
        with self._counting:
            self._held += size - self._sizes.pop(digest, 0)
            self._sizes[digest] = size
            while self._held > self._near_bytes:
                oldest, freed = self._sizes.popitem(last=False)
                self._held -= freed
                self._near.delete(oldest)


def _name(digest: str) -> str:
    return f"{digest[:2]}/{digest}"
