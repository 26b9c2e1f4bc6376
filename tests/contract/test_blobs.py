"""What blobs promise, in a folder, and over fsspec on a file system and on an object store alike."""

from __future__ import annotations

import errno
import importlib.util
import os
import random
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from resonator.bus.assembly import Assembly
from resonator.bus.blobs import BlobMissing, Blobs, BlobStore, BlobsUnreachable, digest_of, serve
from resonator.errors import InputInvalid
from resonator.messages import MAX_CHUNK, BlobAbsent, BlobChunk, BlobRequest
from resonator_hub.shared_blobs import SharedBlobs, open_blobs
from resonator_hub.shelf import Shelf

ABSENT = "0" * 64
OTHER = os.environ.get("RESONATOR_TEST_BLOBS")
"""An URL of a store to run this suite over, such as `s3://bucket/folder`."""

Reopen = Callable[[], Blobs]


@pytest.fixture(params=["folder", "file", "memory", *(["other"] if OTHER else [])])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where blobs are kept: a path, or what comes before `://` and the rest."""
    kind = request.param
    place = f"{OTHER}/{uuid.uuid4().hex}" if kind == "other" else f"/{uuid.uuid4().hex}/blobs"
    yield {
        "folder": str(tmp_path / "far"),
        "file": f"file://{tmp_path}/far",
        "memory": f"memory:/{place}",
    }.get(kind, place)
    if kind in ("memory", "other"):
        Shelf(f"memory:/{place}" if kind == "memory" else place).clear("")


@pytest.fixture
def reopen(where: str, tmp_path: Path) -> Reopen:
    """Opens the store as another process or machine would, with nothing near."""

    def opened() -> Blobs:
        if "://" not in where:
            return BlobStore(Path(where))
        return SharedBlobs(Shelf(where), BlobStore(tmp_path / uuid.uuid4().hex, lasting=False))

    return opened


@pytest.fixture
def blobs(reopen: Reopen) -> Blobs:
    return reopen()


def damage(where: str, digest: str) -> None:
    with fsspec.open(f"{where}/{digest[:2]}/{digest}", "wb") as file:
        file.write(b"damaged")


def files_below(where: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(where)
    return sorted(name for name in files.find(root) if not files.isdir(name))


def test_what_was_put_is_found_by_its_digest_also_by_others(blobs: Blobs, reopen: Reopen) -> None:
    digest = blobs.put(b"kernel")

    assert digest == digest_of(b"kernel")
    for store in (blobs, reopen()):
        assert store.has(digest)
        assert store.get(digest) == b"kernel"
        assert store.near(digest)


def test_putting_twice_leaves_one_file(blobs: Blobs, reopen: Reopen, where: str) -> None:
    digest = blobs.put(b"kernel")

    assert blobs.put(b"kernel") == digest
    assert reopen().put(b"kernel") == digest
    assert [name.rpartition("/")[2] for name in files_below(where)] == [digest]


def test_nothing_is_there_that_was_not_put(blobs: Blobs) -> None:
    assert not blobs.has(ABSENT)
    with pytest.raises(BlobMissing, match=f"{ABSENT} is not in"):
        blobs.get(ABSENT)
    with pytest.raises(BlobMissing, match=f"{ABSENT} is not in"):
        blobs.read(ABSENT, 0, 10)


def test_a_damaged_blob_is_not_handed_out_and_can_be_put_again(
    blobs: Blobs, reopen: Reopen, where: str
) -> None:
    digest = blobs.put(b"kernel")
    damage(where, digest)
    other = reopen()

    with pytest.raises(BlobMissing, match="damaged"):
        other.get(digest)

    assert not other.has(digest)
    assert other.put(b"kernel") == digest
    assert reopen().get(digest) == b"kernel"


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_what_is_no_digest_is_refused(blobs: Blobs, name: str) -> None:
    for use in (blobs.get, blobs.has, blobs.delete, blobs.partial_path):
        with pytest.raises(InputInvalid, match="64 lower-case hexadecimal digits"):
            use(name)
    with pytest.raises(InputInvalid, match="64 lower-case hexadecimal digits"):
        blobs.read(name, 0, 1)


def test_deleting_is_final_and_may_be_repeated(blobs: Blobs, reopen: Reopen) -> None:
    digest = blobs.put(b"kernel")

    blobs.delete(digest)
    blobs.delete(digest)

    assert not blobs.has(digest)
    assert not reopen().has(digest)


@pytest.mark.parametrize(
    ("offset", "length", "piece"), [(0, 0, b""), (0, 4, b"0123"), (8, 5, b"89"), (10, 3, b""), (12, 1, b"")]
)
def test_pieces_are_cut_at_the_end_and_tell_the_size(
    reopen: Reopen, offset: int, length: int, piece: bytes
) -> None:
    digest = reopen().put(b"0123456789")

    assert reopen().read(digest, offset, length) == (piece, 10)


def test_it_serves_those_who_ask_for_a_piece(blobs: Blobs, reopen: Reopen) -> None:
    digest, request = blobs.put(b"0123456789"), BlobRequest(digest=ABSENT, offset=8, length=5)

    assert serve(reopen(), request) == BlobAbsent(digest=ABSENT)
    assert serve(reopen(), request.model_copy(update={"digest": digest})) == BlobChunk(
        digest=digest, offset=8, total=10, data=b"89"
    )


def test_a_blob_that_was_pulled_is_there_for_others(blobs: Blobs, reopen: Reopen, tmp_path: Path) -> None:
    data = random.Random(0).randbytes(2 * MAX_CHUNK + 7)
    peer = BlobStore(tmp_path / "peer")
    assembly = Assembly(blobs, peer.put(data), len(data))

    while requests := assembly.requests(0.0):
        for request in requests:
            assembly.accept(serve(peer, request))

    assert assembly.done
    assert reopen().get(digest_of(data)) == data


def test_many_threads_may_use_it_at_once(blobs: Blobs, reopen: Reopen) -> None:
    contents = [random.Random(seed).randbytes(20_000) for seed in range(12)]
    other = reopen()

    with ThreadPoolExecutor(8) as threads:
        digests = list(threads.map(blobs.put, contents * 3))
        assert list(threads.map(other.get, digests)) == contents * 3


def test_a_folder_of_blobs_is_read_where_it_was_copied_to(where: str, reopen: Reopen, tmp_path: Path) -> None:
    own = BlobStore(tmp_path / "own")
    digest = own.put(b"kernel")

    with fsspec.open(f"{where}/{digest[:2]}/{digest}", "wb", **_making_folders(where)) as file:
        file.write(own.path(digest).read_bytes())

    assert reopen().get(digest) == b"kernel"


def _making_folders(where: str) -> dict[str, bool]:
    return {"auto_mkdir": True} if where.startswith(("/", "file:")) else {}


# --- over fsspec alone ----------------------------------------------------------------------------------


def shared(near: Path, near_bytes: int) -> SharedBlobs:
    return SharedBlobs(Shelf(f"memory://{near}"), BlobStore(near, lasting=False), near_bytes)


def test_what_is_near_is_bounded_and_what_was_used_last_stays(tmp_path: Path) -> None:
    blobs = shared(tmp_path / "near", 5000)
    digests = [blobs.put(bytes([number]) * 1000) for number in range(5)]
    blobs.get(digests[0])

    newest = blobs.put(b"x" * 1000)

    assert [blobs.near(digest) for digest in (*digests, newest)] == [True, False, True, True, True, True]
    assert blobs.get(digests[1]) == b"\1" * 1000
    held = sum(file.stat().st_size for file in (tmp_path / "near").rglob("*") if file.is_file())
    assert held <= 5000


def test_a_large_blob_is_read_in_pieces_and_not_kept_near(tmp_path: Path) -> None:
    blobs = shared(tmp_path / "near", 4000)
    data = random.Random(0).randbytes(1001)
    digest = blobs.put(data)

    assert blobs.read(digest, 990, 100) == (data[990:], 1001)
    assert blobs.get(digest) == data
    assert not blobs.near(digest)


def test_a_full_disk_here_costs_no_blob_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    blobs = shared(tmp_path / "near", 5000)
    monkeypatch.setattr(BlobStore, "put", full)
    digest = blobs.put(b"kernel")

    assert blobs.get(digest) == b"kernel"
    assert not blobs.near(digest)


def test_what_an_earlier_life_had_near_is_gone_and_what_was_growing_is_not(tmp_path: Path) -> None:
    near, url = tmp_path / "near", f"memory://{tmp_path}"
    digest = open_blobs(url, near).put(b"kernel")
    growing = BlobStore(near).partial_path(ABSENT)
    growing.parent.mkdir(exist_ok=True)
    growing.write_bytes(b"half")

    again = open_blobs(url, near)

    assert not again.near(digest)
    assert again.get(digest) == b"kernel"
    assert again.partial_path(ABSENT).read_bytes() == b"half"


@pytest.mark.parametrize("kind", [LocalFileSystem, MemoryFileSystem])
def test_a_write_that_fails_leaves_nothing(
    kind: type[LocalFileSystem | MemoryFileSystem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/far" if kind is LocalFileSystem else f"memory://{tmp_path}/far"
    blobs = SharedBlobs(Shelf(url), BlobStore(tmp_path / "near"))
    write = kind.pipe_file

    def half(files: LocalFileSystem, path: str, data: bytes) -> None:
        if kind is LocalFileSystem:  # an object store has nothing before it has everything
            write(files, path, data[:3])
        raise OSError("no space left")

    monkeypatch.setattr(kind, "pipe_file", half)
    with pytest.raises(BlobsUnreachable, match=r"far failed: no space left"):
        blobs.put(b"kernel")

    assert not blobs.has(digest_of(b"kernel"))
    assert files_below(url) == []


def test_a_store_that_cannot_be_asked_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = shared(tmp_path, 1000)

    def away(*_: object, **__: object) -> None:
        raise ConnectionError("the line is dead")

    monkeypatch.setattr(MemoryFileSystem, "info", away)
    with pytest.raises(BlobsUnreachable, match="the line is dead"):
        blobs.has(ABSENT)


@pytest.mark.parametrize("url", ["nonsense://x", "s3://key:secret@bucket/x", "s3://bucket"])
def test_a_url_that_cannot_be_used_is_refused_without_telling_its_password(url: str, tmp_path: Path) -> None:
    if url.startswith("s3") and importlib.util.find_spec("s3fs"):
        pytest.skip("s3fs is installed, and would look for a network")
    with pytest.raises((InputInvalid, BlobsUnreachable)) as told:
        open_blobs(url, tmp_path)
    assert str(told.value).startswith("blobs")
    assert "secret" not in str(told.value)


def test_a_path_or_file_url_is_a_folder_that_waits_for_its_disk(tmp_path: Path) -> None:
    for where in (str(tmp_path / "a"), f"file://{tmp_path}/b"):
        assert isinstance(open_blobs(where, tmp_path / "near"), BlobStore)
