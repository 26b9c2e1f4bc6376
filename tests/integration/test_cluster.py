"""Compute on a real Dask cluster: a scheduler and two workers, all processes of their own."""

from __future__ import annotations

import asyncio
import os
import selectors
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

import compute_calls as calls
from fakes.cluster import CountingRelay, DaskCluster, DaskWorker
from fakes.house import House
from resonator import bundle
from resonator.bus.blobs import BlobStore
from resonator.errors import InputInvalid, Unreachable
from resonator.messages import JobState
from resonator_hub.build.kernel import Kernel, build
from resonator_hub.cluster import connection
from resonator_hub.cluster import pool as cluster_pool
from resonator_hub.cluster.pool import ClusterPool
from resonator_hub.compute import Compute, ComputeFailed
from resonator_hub.cost_model import Sample, update
from resonator_hub.frontends import ModelInvalid
from resonator_hub.frontends.onnx import extract
from resonator_hub.meter import metered
from resonator_hub.search import Proposal, select
from resonator_hub.shared_blobs import SharedBlobs
from resonator_hub.shelf import Shelf
from small_models import perceptron

TIMEOUT_S = 60.0
PACKAGES = ("resonator_hub", "compute_calls")
TARGET = '{"kind": "llvm", "num-cores": 1}'
LIGHT = "resonator_hub.warm:load_onnx"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[DaskCluster]:
    with DaskCluster(folder) as started:
        yield started


@pytest.fixture(scope="module")
def relay(cluster: DaskCluster) -> Iterator[CountingRelay]:
    with CountingRelay(cluster.port) as started:
        yield started


@pytest.fixture(scope="module")
def blobs(folder: Path) -> BlobStore:
    return BlobStore(folder / "blobs")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def compute(
    cluster: DaskCluster, relay: CountingRelay, folder: Path, blobs: BlobStore
) -> AsyncIterator[Compute]:
    await asyncio.to_thread(cluster.add_workers, 2)
    pool = ClusterPool(relay.address, str(folder / "blobs"), blobs, packages=PACKAGES)
    compute = Compute(pool, await asyncio.to_thread(pool.open))
    await compute.start()
    yield compute
    await compute.close()


async def test_a_scheduler_without_workers_is_told_so(
    cluster: DaskCluster, folder: Path, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "WORKERS_S", 0.2)
    pool = ClusterPool(cluster.address, str(folder / "blobs"), blobs)
    with pytest.raises(Unreachable, match=r"scheduler at tcp://127\.0\.0\.1:\d+ had no worker within 0\.2 s"):
        await asyncio.to_thread(pool.open)
    pool.shutdown()


async def test_without_a_scheduler_the_sentence_says_where_it_should_be(
    folder: Path, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_S", 0.2)
    pool = ClusterPool("tcp://127.0.0.1:9", str(folder / "blobs"), blobs)
    with pytest.raises(
        Unreachable, match=r"no Dask scheduler answered at tcp://127\.0\.0\.1:9 within 0\.2 s"
    ):
        await asyncio.to_thread(pool.open)
    pool.shutdown()


async def test_tls_takes_certificates(folder: Path, blobs: BlobStore) -> None:
    pool = ClusterPool("tls://127.0.0.1:9", str(folder / "blobs"), blobs)
    with pytest.raises(InputInvalid, match=r"tls:// takes certificates.*distributed\.comm\.tls\.ca-file"):
        await asyncio.to_thread(pool.open)
    pool.shutdown()


async def test_calls_run_on_the_workers_and_end_as_they_do_at_home(compute: Compute) -> None:
    assert compute.slots == 2
    assert await compute.run(calls.add, 2, 3, timeout_s=TIMEOUT_S) == 5
    assert await compute.run(calls.loaded_modules, timeout_s=TIMEOUT_S) == (True, True)
    with pytest.raises(ModelInvalid, match=r"^No\.$"):
        await compute.run(calls.refuse, timeout_s=TIMEOUT_S)
    with pytest.raises(RuntimeError, match="OpNotImplemented: no such operator"):
        await compute.run(calls.fail_inside_tvm, timeout_s=TIMEOUT_S)
    with pytest.raises(ComputeFailed, match="crash did not finish: its process was killed, crashed or"):
        await compute.run(calls.crash, timeout_s=TIMEOUT_S)
    with metered() as meter:
        await compute.run(calls.add, 1, 1, timeout_s=TIMEOUT_S)
    assert meter.cpu_s < 0.01, "charged by the worker, not by the clock"


async def test_stages_are_confined_there_as_at_home(compute: Compute, tmp_path: Path) -> None:
    if set(await compute.run(calls.layers, timeout_s=TIMEOUT_S)) != {"landlock", "seccomp"}:
        pytest.skip("this Linux has no Landlock or no seccomp")
    secret = tmp_path / "own.key"
    secret.write_text("secret")
    found = await compute.run(calls.attempts, str(secret), str(tmp_path), os.getpid(), timeout_s=TIMEOUT_S)
    allowed = {"write to its folder", "make a folder in it", "start a linker"}
    assert {what for what, outcome in found.items() if outcome == "done"} == allowed


async def test_large_arguments_and_results_do_not_pass_the_scheduler(
    compute: Compute, relay: CountingRelay, folder: Path
) -> None:
    data = os.urandom(8 * 2**20)
    before = relay.count

    assert await compute.run(calls.reverse, data, timeout_s=TIMEOUT_S) == data[::-1]

    assert relay.count - before < 2**16
    await asyncio.wait_for(_nothing_left(folder / "blobs" / "calls"), TIMEOUT_S)


async def _nothing_left(parcels: Path) -> None:
    while any(parcels.iterdir()):
        await asyncio.sleep(0)


async def test_a_cancelled_call_ends_its_process_and_the_slot_works_again(
    compute: Compute, cluster: DaskCluster
) -> None:
    pipes = await pipes_of(compute, cluster)
    call = asyncio.ensure_future(compute.run(calls.announce, timeout_s=TIMEOUT_S))
    _, pid = await asyncio.to_thread(pipes.first)

    call.cancel()

    assert await asyncio.to_thread(ends, pid)
    pipes.close()
    assert await asyncio.gather(*(compute.run(calls.add, 4, n, timeout_s=TIMEOUT_S) for n in range(2))) == [
        4,
        5,
    ]


async def test_a_call_is_ended_at_its_timeout(compute: Compute) -> None:
    spinning = [compute.run(calls.spin, timeout_s=0.3) for _ in range(compute.slots)]
    outcomes = await asyncio.gather(*spinning, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ComputeFailed] * compute.slots
    assert await compute.run(calls.add, 2, 2, timeout_s=TIMEOUT_S) == 4


async def test_a_worker_of_another_version_is_refused_with_both_versions(
    compute: Compute, cluster: DaskCluster, folder: Path, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_pool, "versions", lambda: {"apache-tvm": "9.9"})
    other = ClusterPool(cluster.address, str(folder / "blobs"), blobs, load=LIGHT)
    await asyncio.to_thread(other.open)
    with pytest.raises(ComputeFailed, match=r"worker at tcp.*\(and 1 more\).*apache-tvm 0.*, the hub 9\.9"):
        await asyncio.to_thread(other.wait_until_warm)
    other.shutdown()


async def test_a_worker_that_sees_other_blobs_is_refused(
    compute: Compute, cluster: DaskCluster, tmp_path: Path
) -> None:
    where = f"memory://{tmp_path}"  # each process has a memory of its own
    blobs = SharedBlobs(Shelf(where), BlobStore(tmp_path / "near"))
    other = ClusterPool(cluster.address, where, blobs, load=LIGHT)
    await asyncio.to_thread(other.open)
    with pytest.raises(ComputeFailed, match="is of no use: it sees no blobs of the hub at memory://"):
        await asyncio.to_thread(other.wait_until_warm)
    other.shutdown()


async def test_an_operator_is_tuned_there_and_a_build_outlives_its_worker(
    compute: Compute, cluster: DaskCluster, folder: Path
) -> None:
    extraction = await compute.run(extract, perceptron(), {}, TARGET, timeout_s=TIMEOUT_S)
    module = extraction.tasks[0].module
    proposals: tuple[Proposal, ...] = await compute.run(
        select, module, TARGET, (), None, 4, 0, frozenset(), (), timeout_s=TIMEOUT_S
    )
    kernels = await asyncio.gather(
        *(compute.run(build, module, one.trace, TARGET, timeout_s=TIMEOUT_S) for one in proposals)
    )
    samples = [Sample(one.features, 1e-3 * (n + 1), "task") for n, one in enumerate(proposals)]
    model = await compute.run(update, samples, None, timeout_s=TIMEOUT_S)
    assert [type(kernel) for kernel in kernels] == [Kernel] * 4
    assert model

    pipes = await pipes_of(compute, cluster)
    again = asyncio.ensure_future(
        compute.run(calls.announce_and_build, module, proposals[0].trace, TARGET, timeout_s=TIMEOUT_S)
    )
    worker, pid = await asyncio.to_thread(pipes.first)
    worker.process.kill()
    other, _ = await asyncio.to_thread(pipes.first)

    assert other is not worker
    assert await again == kernels[0]
    assert await asyncio.to_thread(ends, pid), "what a worker runs dies with it"
    assert "lose already computed" not in (folder / "scheduler.log").read_text(), "results are let go of"
    pipes.close()


async def test_a_worker_of_another_version_that_joins_gets_no_calls(
    compute: Compute, cluster: DaskCluster, folder: Path
) -> None:
    fake = folder / "other" / "apache_tvm-9.9.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: apache-tvm\nVersion: 9.9\n")
    running = len([worker for worker in cluster.workers if worker.process.poll() is None])
    await asyncio.to_thread(cluster.add_workers, 1, python_path=fake.parent)

    sums = await asyncio.gather(
        *(compute.run(calls.add, 1, n, timeout_s=TIMEOUT_S) for n in range(8 * (running + 1)))
    )

    assert sums == [1 + n for n in range(8 * (running + 1))]
    log = cluster.workers[-1].folder / "worker.log"
    await asyncio.wait_for(_says(log, "it has apache-tvm 9.9, the hub "), TIMEOUT_S)


async def _says(log: Path, sentence: str) -> None:
    while sentence not in log.read_text():
        await asyncio.sleep(0)


@pytest.mark.nightly
async def test_a_whole_job_is_tuned_on_the_cluster(
    compute: Compute, blobs: BlobStore, tmp_path: Path
) -> None:
    house = House(tmp_path)
    house.blobs, house.compute = blobs, compute  # type: ignore[assignment]
    listening = await house.device.start()
    async with house.hub():
        await house.submit(trials=16)
        status = await asyncio.wait_for(house.ended(), 300.0)
    listening.cancel()
    assert status.state is JobState.SUCCEEDED, status.failure
    assert status.trials == 16
    assert status.bundle is not None
    manifest, library = bundle.read(blobs.get(status.bundle.digest))
    assert manifest.records > 0
    assert library[:4] == b"\x7fELF"


@pytest.mark.nightly
async def test_a_cluster_that_is_lost_and_comes_back_costs_no_call(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    with DaskCluster(tmp_path) as own:
        own.add_workers(1)
        pool = ClusterPool(own.address, str(tmp_path / "blobs"), blobs, packages=PACKAGES, load=LIGHT)
        compute = Compute(pool, await asyncio.to_thread(pool.open))
        await compute.start()
        own.kill()
        sums = [asyncio.ensure_future(compute.run(calls.add, 2, n, timeout_s=TIMEOUT_S)) for n in range(4)]
        await asyncio.to_thread(own.start_again)
        assert await asyncio.gather(*sums) == [2, 3, 4, 5]
        await compute.close()


class Pipes:
    """A pipe at each worker, by which calls there tell that they have begun."""

    def __init__(self, paths: dict[Path, DaskWorker]) -> None:
        self._selector = selectors.DefaultSelector()
        self._ends = []
        for path, worker in paths.items():
            os.mkfifo(path)
            end = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # also to write: so that it has no end of file
            self._selector.register(end, selectors.EVENT_READ, worker)
            self._ends.append((path, end))

    def first(self) -> tuple[DaskWorker, int]:
        """Block until a call has begun; return at which worker, and its process."""
        ready = self._selector.select(TIMEOUT_S)
        assert ready, "no call has begun"
        key, _ = ready[0]
        return key.data, int(os.read(key.fd, 100))

    def close(self) -> None:
        """Remove them."""
        self._selector.close()
        for path, end in self._ends:
            os.close(end)
            path.unlink(missing_ok=True)


async def pipes_of(compute: Compute, cluster: DaskCluster) -> Pipes:
    """Lay a pipe where each worker's calls run."""
    found: dict[Path, DaskWorker] = {}
    while len(found) < len(cluster.workers):
        places = await asyncio.gather(
            *(compute.run(calls.folder, timeout_s=TIMEOUT_S) for _ in range(compute.slots))
        )
        for place in map(Path, places):
            (worker,) = (one for one in cluster.workers if one.folder in place.parents)
            found[place / "started"] = worker
    return Pipes(found)


def ends(pid: int) -> bool:
    """Block until a process that is not our child has ended; return whether it did in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(descriptor), selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(TIMEOUT_S))
