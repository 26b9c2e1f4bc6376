"""Blobs come in: along with a message, from disk, or pulled."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from resonator.bus.blobs import BlobStore, digest_of, serve
from resonator.failures import Failure, FailureKind
from resonator.messages import BlobAbsent, BlobRef, BlobRequest
from resonator_agent.intake import Intake

DATA = bytes(range(256)) * 4000
REF = BlobRef(digest=digest_of(DATA), size=len(DATA))


class Door:
    """An intake with what it asked for and what it reported."""

    def __init__(self, folder: Path):
        self.store = BlobStore(folder)
        self.asked: list[BlobRequest] = []
        self.ended: list[tuple[str, Failure | None]] = []
        self.intake = Intake(self.store, self.asked.append, lambda *end: self.ended.append(end))


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path / "here")


async def test_a_blob_in_the_message_is_unpacked_and_kept(door: Door) -> None:
    door.intake.fetch(REF.model_copy(update={"data": zlib.compress(DATA)}))

    assert door.ended == [(REF.digest, None)]
    assert door.store.get(REF.digest) == DATA


@pytest.mark.parametrize(
    "packed", [b"no zlib", zlib.compress(DATA[:-1]), zlib.compress(DATA + b"x"), zlib.compress(DATA[::-1])]
)
async def test_bytes_that_are_not_the_blob_are_corrupt(door: Door, packed: bytes) -> None:
    door.intake.fetch(REF.model_copy(update={"data": packed}))

    ((digest, failure),) = door.ended
    assert digest == REF.digest
    assert failure is not None
    assert failure.kind is FailureKind.BLOB_CORRUPT
    assert not door.store.has(REF.digest)


async def test_a_blob_on_disk_is_not_pulled(door: Door) -> None:
    door.store.put(DATA)

    door.intake.fetch(REF)

    assert door.ended == [(REF.digest, None)]
    assert door.asked == []


async def test_a_large_blob_is_pulled_in_pieces(door: Door, tmp_path: Path) -> None:
    hub = BlobStore(tmp_path / "hub")
    hub.put(DATA)

    door.intake.fetch(REF)
    while door.asked:
        door.intake.accept(serve(hub, door.asked.pop(0)))

    assert door.ended == [(REF.digest, None)]
    assert door.store.get(REF.digest) == DATA


async def test_a_blob_the_hub_does_not_have_fails(door: Door) -> None:
    door.intake.fetch(REF)
    door.intake.accept(BlobAbsent(digest=REF.digest))

    assert door.ended[0][1] is not None


@pytest.mark.parametrize("packed", [zlib.compress(DATA), None])
async def test_a_disk_that_fails_is_the_devices_fault(door: Door, packed: bytes | None) -> None:
    door.store.partial_path(REF.digest).parent.touch()

    door.intake.fetch(REF.model_copy(update={"data": packed}))

    ((_, failure),) = door.ended
    assert failure is not None
    assert failure.kind is FailureKind.DEVICE_REFUSED


async def test_a_dropped_blob_is_neither_kept_nor_awaited(door: Door, tmp_path: Path) -> None:
    hub = BlobStore(tmp_path / "hub")
    hub.put(DATA)
    door.intake.fetch(REF)
    door.intake.drop(REF.digest)

    door.intake.accept(serve(hub, door.asked[0]))

    assert door.ended == []
    assert not door.store.partial_path(REF.digest).exists()
