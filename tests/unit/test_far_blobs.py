"""A hub whose blobs are elsewhere: jobs end as ever, and its event loop waits for none of them."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.house import House
from fakes.shell import CLIENT, SITE
from resonator.bus import topics
from resonator.bus.blobs import BlobStore, BlobsUnreachable
from resonator.messages import BlobChunk, BlobRequest, JobState, Rejected
from resonator_hub.shared_blobs import SharedBlobs
from resonator_hub.shelf import Shelf


class Far(Shelf):
    """An object store that notes who waits for it in the event loop, and may be out of reach."""

    def __init__(self) -> None:
        super().__init__(f"memory://{uuid.uuid4().hex}")
        self.fetched: list[str] = []
        self.in_loop: list[str] = []
        self.away = False

    def get(self, name: str) -> bytes:
        self._note(name)
        self.fetched.append(name)
        return super().get(name)

    def put(self, name: str, data: bytes) -> None:
        self._note(name)
        super().put(name, data)

    def _note(self, name: str) -> None:
        if self.away:
            raise BlobsUnreachable("no line")
        if threading.current_thread() is threading.main_thread():
            self.in_loop.append(name)


def near_nothing(far: Far, folder: Path) -> SharedBlobs:
    return SharedBlobs(far, BlobStore(folder / uuid.uuid4().hex, lasting=False))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    listening = await made.device.start()
    yield made
    listening.cancel()
    await asyncio.wait({listening})


async def test_a_job_is_tuned_with_blobs_that_are_elsewhere(house: House, tmp_path: Path) -> None:
    far = Far()
    for life, name in enumerate(("j", "again")):
        house.blobs = near_nothing(far, tmp_path)
        async with house.hub():
            await house.submit(trials=16, job=name, again=life > 0)
            status = await house.ended(name)
        assert status.state is JobState.SUCCEEDED, status.failure
    assert far.fetched, "the second life has found everything near"
    assert far.in_loop == []


async def test_a_blob_from_afar_is_fetched_once_however_many_pieces_are_asked_for(
    house: House, tmp_path: Path
) -> None:
    far = Far()
    house.blobs = near_nothing(far, tmp_path)
    async with house.hub():
        await house.submit(trials=8)
        bundle = (await house.ended()).bundle
    assert bundle is not None
    house.blobs = near_nothing(far, tmp_path)
    far.fetched.clear()
    async with house.hub():
        for offset in (0, 100, 200, 300):
            request = BlobRequest(digest=bundle.digest, offset=offset, length=100)
            await house.client.send(topics.client_up(SITE, CLIENT, "blob"), request)
        await house.broker.wait_for(BlobChunk, 4)
    pieces = [sent.message for sent in house.broker.sent(BlobChunk)]
    assert sorted(piece.offset for piece in pieces if isinstance(piece, BlobChunk)) == [0, 100, 200, 300]
    assert len(far.fetched) == 1
    assert far.in_loop == []


async def test_a_store_out_of_reach_costs_a_step_and_no_hub(house: House, tmp_path: Path) -> None:
    far = Far()
    house.blobs = near_nothing(far, tmp_path)
    async with house.hub():
        far.away = True
        await house.submit(trials=8, job="lost")
        await house.broker.wait_for(Rejected)
        far.away = False
        await house.submit(trials=8)
        status = await house.ended()
    assert status.state is JobState.SUCCEEDED, status.failure
