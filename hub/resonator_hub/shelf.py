"""Named bytes in a folder of any file system or object store that fsspec reaches."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resonator.bus.blobs import BlobMissing, BlobsUnreachable
from resonator.errors import InputInvalid

_PUTS_WHOLE = frozenset(
    {"abfs", "abfss", "adl", "az", "gcs", "gs", "memory", "oci", "oss", "r2", "s3", "s3a", "tos"}
)
"""Object stores, in which what is put appears when it is complete; elsewhere it is renamed into place."""


class Shelf:
    """Bytes by name below `where`, a URL of fsspec's or a path, each there whole or not at all.

    Blocks while it reads and writes. Every method raises BlobsUnreachable when the store fails it.
    """

    def __init__(self, where: str) -> None:
        self.shown = re.sub(r"//[^/@]*@", "//", where)
        """Where it is, without the password that a URL may hold."""
        from fsspec.core import url_to_fs

        try:
            self._files, self._root = url_to_fs(where)
        except (ImportError, ValueError, TypeError, OSError) as error:
            raise InputInvalid(
                f"blobs: {self.shown} cannot be used: {error}; give a folder, or a URL that fsspec "
                "reaches with the packages installed here"
            ) from error
        protocol = self._files.protocol
        self._puts_whole = not _PUTS_WHOLE.isdisjoint({protocol} if isinstance(protocol, str) else protocol)

    def has(self, name: str) -> bool:
        """Whether it is there."""
        try:
            self.size(name)  # `exists` of fsspec says no as well when it could not ask
        except BlobMissing:
            return False
        return True

    def size(self, name: str) -> int:
        """Return how many bytes it has; raises BlobMissing."""
        with self._reached(name):
            return int(self._files.info(self._path(name))["size"])

    def get(self, name: str) -> bytes:
        """Return it whole; raises BlobMissing."""
        with self._reached(name):
            return bytes(self._files.cat_file(self._path(name)))

    def read(self, name: str, start: int, end: int) -> bytes:
        """Return its bytes from `start` to before `end`; raises BlobMissing."""
        with self._reached(name):
            return bytes(self._files.cat_file(self._path(name), start=start, end=end))

    def put(self, name: str, data: bytes) -> None:
        """Keep `data` under a name."""
        self._write(name, lambda path: self._files.pipe_file(path, data))

    def put_file(self, name: str, file: Path) -> None:
        """Keep what `file` holds under a name."""
        self._write(name, lambda path: self._files.put_file(str(file), path))

    def delete(self, name: str) -> None:
        """Remove it, if it is there."""
        with self._reached(), suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def clear(self, folder: str) -> None:
        """Remove a folder and what is in it, if it is there."""
        with self._reached(), suppress(FileNotFoundError):
            self._files.rm(self._path(folder), recursive=True)

    def probe(self) -> None:
        """Write, read and remove something; raises BlobsUnreachable unless that works."""
        name = f"probe-{uuid.uuid4().hex}"
        self.put(name, name.encode())
        if self.get(name) != name.encode():
            raise BlobsUnreachable(f"blobs at {self.shown} are not what was written there")
        self.delete(name)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _write(self, name: str, write: Callable[[str], object]) -> None:
        path = self._path(name)
        with self._reached():
            if self._puts_whole:
                write(path)
                return
            growing = self._path(f"partial/put-{uuid.uuid4().hex}")
            for one in (growing, path):
                self._files.makedirs(one.rpartition("/")[0], exist_ok=True)
            try:
                write(growing)
                self._files.mv(growing, path)
            except BaseException:
                if self._files.exists(growing):
                    self._files.rm(growing)
                raise

    @contextmanager
    def _reached(self, name: str | None = None) -> Iterator[None]:
        """Say in our own words what went wrong: every adapter of fsspec raises errors of its own."""
        try:
            yield
        except FileNotFoundError as error:
            if name is None:
                raise BlobsUnreachable(f"blobs at {self.shown} failed: {error}") from error
            raise BlobMissing(f"blob {name.rpartition('/')[2]} is not in {self.shown}") from None
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise BlobsUnreachable(f"blobs at {self.shown} failed: {reason[:500]}") from error
