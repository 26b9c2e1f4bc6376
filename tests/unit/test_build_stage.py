"""Build as the hub performs it: what was built once, for whatever job and in whatever life, is there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.compute import FakeCompute
from resonator.bus.blobs import BlobStore
from resonator.ids import CandidateId, JobId
from resonator_hub.build.stage import perform
from resonator_hub.database import Database, sqlite_url
from resonator_hub.jobs.store import Jobs
from resonator_hub.records import Catalog, Records
from resonator_hub.scheduler.commands import Build
from resonator_hub.scheduler.events import KernelBuilt
from resonator_hub.workshop import Workshop

WORKLOAD = b"workload"


@contextlib.contextmanager
def shop(folder: Path) -> Iterator[tuple[Workshop, FakeCompute]]:
    """A hub's workshop, in one of its lives."""
    database, compute = Database.open(sqlite_url(folder / "hub.db")), FakeCompute()
    catalog, records, jobs = Catalog(database), Records(database), Jobs(database)
    try:
        yield Workshop(compute, BlobStore(folder / "blobs"), catalog, records, jobs, lambda: 0.0), compute
    finally:
        database.close()


async def built(
    shop: Workshop, trace: bytes, target: str = "x86", job: str = "j", workload: bytes = WORKLOAD
) -> KernelBuilt:
    of, traced = shop.blobs.put(workload), shop.blobs.put(trace)
    event = await perform(Build(JobId(job), CandidateId(f"{job}/t0/c0"), of, traced, target), shop)
    assert isinstance(event, KernelBuilt)
    assert event.size == len(shop.blobs.get(event.kernel))
    return event


async def test_a_program_is_built_once_for_each_target(tmp_path: Path) -> None:
    with shop(tmp_path) as (first, compute):
        for trace, program in ((b"one", "p"), (b"other", "p"), (b"third", "q")):
            first.catalog.keep_programs(first.blobs.put(WORKLOAD), {first.blobs.put(trace): program})
        kernel = (await built(first, b"one")).kernel
        assert (await built(first, b"one", job="k")).kernel == kernel
        assert (await built(first, b"other")).kernel == kernel, "another trace, the same program"
        assert len(compute.asked("build")) == 1
        await built(first, b"third")
        await built(first, b"one", target="arm")
        assert len(compute.asked("build")) == 3
    with shop(tmp_path) as (second, compute):
        assert (await built(second, b"one")).kernel == kernel
        assert compute.asked("build") == []


async def test_one_trace_makes_another_kernel_of_each_workload_it_fits(tmp_path: Path) -> None:
    with shop(tmp_path) as (hub, compute):
        for workload, program in ((WORKLOAD, "p"), (b"another", "q")):
            hub.catalog.keep_programs(hub.blobs.put(workload), {hub.blobs.put(b"one"): program})
        first = await built(hub, b"one")
        second = await built(hub, b"one", workload=b"another")
        assert first.kernel != second.kernel
        assert len(compute.asked("build")) == 2


async def test_what_another_version_built_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shop(tmp_path) as (hub, compute):
        hub.catalog.keep_programs(hub.blobs.put(WORKLOAD), {hub.blobs.put(b"one"): "p"})
        await built(hub, b"one")
        monkeypatch.setattr("resonator_hub.records.catalog._version", lambda _name: "another")
        await built(hub, b"one")
        assert len(compute.asked("build")) == 2


async def test_a_kernel_that_was_damaged_on_disk_is_built_again(tmp_path: Path) -> None:
    with shop(tmp_path) as (hub, compute):
        hub.catalog.keep_programs(hub.blobs.put(WORKLOAD), {hub.blobs.put(b"one"): "p"})
        event = await built(hub, b"one")
        hub.blobs.path(event.kernel).write_bytes(b"damaged")
        assert await built(hub, b"one") == event
        assert len(compute.asked("build")) == 2
