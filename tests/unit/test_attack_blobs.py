"""Blobs from somebody who lies about them: what is kept is what was named, or nothing is."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from resonator.bus.assembly import Assembly
from resonator.bus.blobs import BlobStore, digest_of, serve
from resonator.bus.pull import MOST_WINDOW, Pull
from resonator.errors import InputInvalid, MessageInvalid
from resonator.failures import Failure, FailureKind
from resonator.messages import MAX_BLOB, MAX_CHUNK, MAX_INLINE, BlobAbsent, BlobChunk, BlobRef, BlobRequest
from resonator_agent.intake import Intake
from resonator_hub import inline

SIZE = 3 * MAX_CHUNK + 5
DATA = random.Random(1).randbytes(SIZE)
DIGEST = digest_of(DATA)
PLACES = st.one_of(
    st.sampled_from([0, 1, MAX_CHUNK - 1, MAX_CHUNK, 2 * MAX_CHUNK, 3 * MAX_CHUNK, SIZE, MAX_BLOB]),
    st.integers(0, MAX_BLOB),
)
ANSWERS = st.one_of(
    st.builds(BlobAbsent, digest=st.sampled_from([DIGEST, "0" * 64])),
    st.builds(
        BlobChunk,
        digest=st.sampled_from([DIGEST, DIGEST, "0" * 64]),
        offset=PLACES,
        total=st.sampled_from([SIZE, SIZE, SIZE, SIZE - 1, 0, MAX_BLOB]),
        data=st.sampled_from([b"", b"x", bytes(5), bytes(MAX_CHUNK), DATA[:MAX_CHUNK], DATA[-5:]]),
    ),
    st.none(),
)
"""Where there is none, the next request is answered as it should be."""


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@given(st.lists(ANSWERS, max_size=30))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_attack_by_answers_nobody_asked_for(
    tmp_path_factory: pytest.TempPathFactory, answers: list[BlobChunk | BlobAbsent | None]
) -> None:
    root = tmp_path_factory.mktemp("pull")
    store, peer = BlobStore(root / "near"), BlobStore(root / "far")
    peer.put(DATA)
    assembly = Assembly(store, DIGEST, SIZE)
    asked: list[BlobRequest] = []
    for answer in answers:
        asked += assembly.requests(0.0)
        if answer is None and asked:
            answer = serve(peer, asked.pop(0))
        if answer is not None:
            assembly.accept(answer)

    assert all(request.offset + request.length <= SIZE for request in asked)
    if assembly.done:
        assert store.get(DIGEST) == DATA
    else:
        assert not store.has(DIGEST)
        assert files(store.path(DIGEST).parent) == []
    assert assembly.failure is None or assembly.failure.kind is FailureKind.BLOB_CORRUPT
    assert {path.name for path in files(root / "near")} <= {DIGEST}


@given(st.integers(0, SIZE - 1), st.integers(1, 255))
@settings(max_examples=40, deadline=None)
def test_attack_by_a_changed_byte(tmp_path_factory: pytest.TempPathFactory, place: int, flip: int) -> None:
    store = BlobStore(tmp_path_factory.mktemp("near"))
    changed = bytearray(DATA)
    changed[place] ^= flip
    assembly = Assembly(store, DIGEST, SIZE)
    while requests := assembly.requests(0.0):
        for one in requests:
            data = bytes(changed[one.offset : one.offset + one.length])
            assembly.accept(BlobChunk(digest=DIGEST, offset=one.offset, total=SIZE, data=data))

    assert not assembly.done
    assert not store.has(DIGEST)
    assert assembly.failure is not None
    assert "what came has the digest" in assembly.failure.detail
    assert not store.partial_path(DIGEST).exists()


def test_attack_by_a_blob_of_four_gigabytes_holds_little_in_memory() -> None:
    pull = Pull(DIGEST, MAX_BLOB)
    tracemalloc.start()
    try:
        for _ in range(100):
            for request in pull.requests(0.0):
                if request.offset:
                    data = bytes(request.length)
                    chunk = BlobChunk(digest=DIGEST, offset=request.offset, total=MAX_BLOB, data=data)
                    assert pull.accept(chunk) == b""
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 2 * MOST_WINDOW * MAX_CHUNK


@given(
    st.text(max_size=80)
    | st.sampled_from(["../../etc/passwd", "/etc/passwd", "a" * 64 + "\n", "A" * 64, ".."])
)
@settings(max_examples=200, deadline=None)
def test_attack_by_names_that_lead_elsewhere(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.mktemp("store")
    store = BlobStore(root / "blobs")
    for use in (store.path, store.partial_path, store.has, store.get, store.delete):
        with pytest.raises(InputInvalid, match="is no digest"):
            use(name)
    with pytest.raises(ValidationError):
        BlobRequest(digest=name, offset=0, length=1)
    assert files(root) == []


@given(st.integers(0, MAX_BLOB), st.integers(1, MAX_CHUNK))
@settings(max_examples=100, deadline=None)
def test_attack_by_requests_beyond_the_end(
    tmp_path_factory: pytest.TempPathFactory, offset: int, length: int
) -> None:
    store = BlobStore(tmp_path_factory.mktemp("far"))
    store.put(b"kernel")
    answer = serve(store, BlobRequest(digest=digest_of(b"kernel"), offset=offset, length=length))
    assert isinstance(answer, BlobChunk)
    assert answer.data == b"kernel"[offset : offset + length]


BOMB = zlib.compress(bytes(512 * 2**20), 9)


@pytest.mark.parametrize("size", [len(DATA), MAX_INLINE])
@pytest.mark.parametrize("packed", [BOMB, b"", b"no zlib", zlib.compress(b"other"), zlib.compress(DATA)[:-9]])
def test_attack_by_bytes_that_ride_along(tmp_path: Path, packed: bytes, size: int) -> None:
    ended: list[Failure | None] = []
    store = BlobStore(tmp_path)
    intake = Intake(store, lambda request: None, lambda digest, failure: ended.append(failure))
    ref = BlobRef(digest=DIGEST, size=size, data=packed)
    tracemalloc.start()
    try:
        intake.fetch(ref)
        with pytest.raises(MessageInvalid, match=DIGEST):
            inline.unpack(ref)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert [failure.kind for failure in ended if failure] == [FailureKind.BLOB_CORRUPT]
    assert not store.has(DIGEST)
    assert peak < 8 * MAX_INLINE


def test_attack_by_a_bomb_that_announces_its_size() -> None:
    assert len(BOMB) < MAX_INLINE
    with pytest.raises(ValidationError, match="do not ride along"):
        BlobRef(digest=DIGEST, size=512 * 2**20, data=BOMB)
