"""Where a backup is kept: in a folder, where the next one takes its place, or in one tar file.

Both hold `manifest.json`, the rows as `rows-<digest>.gz`, and blobs as `blobs/aa/aabbcc...`. The manifest is
written last, and says which rows belong to it: a backup that was broken off leaves the one before as it was.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path
from typing import IO, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resonator.bus.blobs import BlobStore, digest_of
from resonator.errors import InputInvalid
from resonator.ids import Digest
from resonator_hub.backup.rows import BackupDamaged

_MANIFEST = "manifest.json"


class Manifest(BaseModel):
    """What a backup is: made when (seconds since the epoch), by which version, with which rows and blobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = Field(1, ge=1, le=1)
    made_at: float
    version: str
    revision: str
    counts: dict[str, int]
    rows: Digest
    blobs: tuple[Digest, ...]


class Place(Protocol):
    """Takes a backup and gives it back; every method that gives raises BackupDamaged."""

    def has(self, digest: str) -> bool:
        """Whether a blob need not be kept again."""

    def keep(self, data: bytes) -> None:
        """Keep a blob."""

    def finish(self, rows: Path, manifest: Manifest) -> None:
        """Keep the rows; from here on this is the backup."""

    def manifest(self) -> Manifest:
        """Return what is here; raises InputInvalid when it is no backup."""

    def rows(self) -> IO[bytes]:
        """Open the rows, whose digest is right."""

    def blob(self, digest: str) -> bytes:
        """Return a blob, verified."""

    def close(self) -> None:
        """Let go of what is open, and of what is half written."""


def place(path: Path) -> Place:
    """Return the place at a path: a tar file if it is called so, or is one, otherwise a folder."""
    return Tarball(path) if path.suffix == ".tar" or path.is_file() else Folder(path)


class Folder:
    """A backup in a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def has(self, digest: str) -> bool:
        """Whether the folder has the blob, from this or an earlier backup."""
        return (self._path / "blobs").is_dir() and self._blobs().has(digest)

    def keep(self, data: bytes) -> None:
        """Keep a blob on the disk."""
        self._blobs().put(data)

    def finish(self, rows: Path, manifest: Manifest) -> None:
        """Put rows and manifest on the disk, and then forget what only an earlier backup needs."""
        target = self._path / _rows_name(manifest)
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(rows, "rb") as file:
            _write(target, file)
        _write(self._path / _MANIFEST, _json(manifest))
        for other in self._path.glob("rows-*.gz"):
            if other != target:
                other.unlink()
        needed = set(manifest.blobs)
        for blob in self._path.glob("blobs/??/*"):
            if blob.name not in needed:
                blob.unlink()

    def manifest(self) -> Manifest:
        """Return what is here; raises InputInvalid when it is no backup."""
        try:
            return _read_manifest((self._path / _MANIFEST).read_bytes(), self._path)
        except OSError as error:
            raise InputInvalid(f"{self._path} is no backup: {error.strerror} ({_MANIFEST})") from None

    def rows(self) -> IO[bytes]:
        """Open the rows, whose digest is right."""
        manifest = self.manifest()
        try:
            return _verified(open(self._path / _rows_name(manifest), "rb"), manifest)
        except OSError as error:
            raise BackupDamaged(f"{self._path} has lost its rows: {error.strerror}") from None

    def blob(self, digest: str) -> bytes:
        """Return a blob, verified."""
        try:
            data = self._blobs().path(digest).read_bytes()
        except OSError as error:
            raise BackupDamaged(f"{self._path} has lost blob {digest}: {error.strerror}") from None
        return _matching(data, digest)

    def close(self) -> None:
        """Nothing is open."""

    def _blobs(self) -> BlobStore:
        return BlobStore(self._path / "blobs")


class Tarball:
    """A backup in one tar file, which is there whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._writing: tarfile.TarFile | None = None
        self._kept: set[str] = set()
        self._reading: tarfile.TarFile | None = None

    def has(self, digest: str) -> bool:
        """Whether the blob was kept already."""
        return digest in self._kept

    def keep(self, data: bytes) -> None:
        """Add a blob."""
        digest = digest_of(data)
        self._kept.add(digest)
        self._add(_blob_name(digest), io.BytesIO(data), len(data))

    def finish(self, rows: Path, manifest: Manifest) -> None:
        """Add rows and manifest; the file has its name from here on."""
        with open(rows, "rb") as file:
            self._add(_rows_name(manifest), file, rows.stat().st_size)
        said = _json(manifest)
        self._add(_MANIFEST, said, len(said.getvalue()))
        assert self._writing is not None
        self._writing.close()
        _sync(self._partial)
        self._partial.replace(self._path)

    def manifest(self) -> Manifest:
        """Return what is here; raises InputInvalid when it is no backup."""
        with self._member(_MANIFEST) as file:
            return _read_manifest(file.read(), self._path)

    def rows(self) -> IO[bytes]:
        """Open the rows, whose digest is right."""
        manifest = self.manifest()
        return _verified(self._member(_rows_name(manifest)), manifest)

    def blob(self, digest: str) -> bytes:
        """Return a blob, verified."""
        with self._member(_blob_name(digest)) as file:
            return _matching(file.read(), digest)

    def close(self) -> None:
        """Close the file, and remove a new one that was not finished."""
        for file in (self._writing, self._reading):
            if file is not None:
                file.close()
        self._partial.unlink(missing_ok=True)

    def _add(self, name: str, file: IO[bytes], size: int) -> None:
        if self._writing is None:
            self._writing = tarfile.TarFile(self._partial, "w")
            self._partial.chmod(0o600)
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o600
        self._writing.addfile(member, file)

    def _member(self, name: str) -> IO[bytes]:
        try:
            if self._reading is None:
                self._reading = tarfile.TarFile(self._path)
            found = self._reading.extractfile(name)
        except OSError as error:
            raise InputInvalid(f"{self._path} is no backup: {error.strerror}") from None
        except tarfile.TarError as error:
            raise InputInvalid(f"{self._path} is no backup: {error}") from None
        except KeyError:
            if name == _MANIFEST:
                raise InputInvalid(f"{self._path} is no backup: it has no {name}") from None
            raise BackupDamaged(f"{self._path} has lost {name}") from None
        assert found is not None, "it holds files alone"
        return found


def _rows_name(manifest: Manifest) -> str:
    return f"rows-{manifest.rows[:16]}.gz"


def _blob_name(digest: str) -> str:
    return f"blobs/{digest[:2]}/{digest}"


def _read_manifest(data: bytes, path: Path) -> Manifest:
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise InputInvalid(
            f"{path} is no backup that this version reads: {error.errors()[0]['msg']}"
        ) from None


def _json(manifest: Manifest) -> io.BytesIO:
    return io.BytesIO(manifest.model_dump_json(indent=1).encode())


def sha256(file: IO[bytes]) -> str:
    """Return the digest of a file that need not fit into memory, and go back to its beginning."""
    digest = hashlib.sha256()
    while piece := file.read(2**20):
        digest.update(piece)
    file.seek(0)
    return digest.hexdigest()


def _verified(file: IO[bytes], manifest: Manifest) -> IO[bytes]:
    if sha256(file) != manifest.rows:
        file.close()
        raise BackupDamaged("the backup's rows are damaged")
    return file


def _matching(data: bytes, digest: str) -> bytes:
    if digest_of(data) != digest:
        raise BackupDamaged(f"the backup's blob {digest} is damaged")
    return data


def _write(path: Path, source: IO[bytes]) -> None:
    """Have a file hold this, also after a loss of power, or what it held before."""
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "wb") as file:
        partial.chmod(0o600)
        shutil.copyfileobj(source, file)
    _sync(partial)
    partial.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
