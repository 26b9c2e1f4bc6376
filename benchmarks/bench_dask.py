"""Builds a minute on a Dask cluster against the hub's own pool, with as many slots on the same machine.

A scheduler and workers of one thread each on loopback, blobs in a folder that both see; the same kernels of
one convolution in turns. QUICK=1 makes one short turn each.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from figures import Figure, keep, quick
from operators import model

from resonator.bus.blobs import BlobStore
from resonator_hub.build.kernel import Kernel, build
from resonator_hub.cluster.pool import ClusterPool
from resonator_hub.frontends.onnx import extract
from resonator_hub.pool import WarmPool
from resonator_hub.search import select

PORT = 18786
TARGET = '{"kind": "llvm", "mcpu": "x86-64-v3", "num-cores": 1}'
KERNELS = 8 if quick() else 48
TURNS = 1 if quick() else 3
END_S = 60.0
Pool = WarmPool | ClusterPool


def main() -> None:
    slots = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        blobs = BlobStore(folder / "blobs")
        local = WarmPool(slots)
        stack.callback(local.shutdown, cancel_futures=True)
        local.wait_until_warm()
        module, traces = candidates(local)
        for data in (module, *traces):
            blobs.put(data)  # as select keeps them
        address = stack.enter_context(cluster(slots, folder))
        began = time.monotonic()
        far = ClusterPool(address, str(folder / "blobs"), blobs)
        stack.callback(far.shutdown, cancel_futures=True)
        far.open()
        far.wait_until_warm()
        print(f"{slots} workers were ready after {time.monotonic() - began:.1f} s", flush=True)
        paces: dict[str, list[float]] = {"local pool": [], "Dask cluster": []}
        for _ in range(TURNS):
            for name, pool in (("local pool", local), ("Dask cluster", far)):
                paces[name].append(pace(pool, module, traces))
                print(f"{name}: {paces[name][-1]:.0f} builds a minute", flush=True)
    medians = {name: statistics.median(found) for name, found in paces.items()}
    ratio = medians["Dask cluster"] / medians["local pool"]
    cost_ms = 60e3 * slots * (1 / medians["Dask cluster"] - 1 / medians["local pool"])
    figures = [Figure(f"{name}, {slots} slots", pace, "builds/min") for name, pace in medians.items()]
    figures.append(Figure("what the cluster adds to a build", cost_ms, "ms"))
    keep("dask", [*figures, Figure("Dask cluster / local pool", ratio, "x", 0.8, more_is_better=True)])


def candidates(pool: Pool) -> tuple[bytes, list[bytes]]:
    """Return a convolution's workload and traces to build."""
    extraction = pool.submit(extract, model("conv3x3"), {}, TARGET).result()
    module = extraction.tasks[0].module
    proposals = pool.submit(select, module, TARGET, (), None, KERNELS, 0, frozenset(), ()).result()
    return module, [one.trace for one in proposals]


def pace(pool: Pool, module: bytes, traces: Sequence[bytes]) -> float:
    """Return how many kernels are built in a minute when all are asked for at once."""
    began = time.monotonic()
    calls = [pool.submit(build, module, trace, TARGET) for trace in traces]
    kernels = [call.result() for call in calls]
    took_s = time.monotonic() - began
    assert all(isinstance(kernel, Kernel) for kernel in kernels), "a build failed"
    return 60 * len(kernels) / took_s


@contextlib.contextmanager
def cluster(workers: int, folder: Path) -> Iterator[str]:
    """Run a scheduler and workers of one thread each."""
    address = f"tcp://127.0.0.1:{PORT}"
    own = ("--dashboard-address", "127.0.0.1:0")
    scheduler = ("scheduler", "--host", "127.0.0.1", "--port", str(PORT), *own)
    worker = (
        "worker",
        address,
        "--nworkers",
        str(workers),
        "--nthreads",
        "1",
        "--local-directory",
        str(folder),
    )
    with open(folder / "dask.log", "wb") as log:
        processes = [
            subprocess.Popen([sys.executable, "-m", "dask", *command], stdout=log, stderr=log, cwd=folder)
            for command in (scheduler, (*worker, *own))
        ]
    try:
        yield address
    finally:
        for process in reversed(processes):  # workers that lose their scheduler take longer to end
            process.terminate()
            process.wait(END_S)


if __name__ == "__main__":
    main()
