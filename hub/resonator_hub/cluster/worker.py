"""A worker of the cluster: it runs the hub's calls in a pool of its own, confined as on the hub's machine."""

from __future__ import annotations

import asyncio
import platform
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog
from distributed import WorkerPlugin, get_worker

from resonator.errors import ResonatorError
from resonator_hub import calls
from resonator_hub.cluster.parcels import Parcels
from resonator_hub.pool import LOAD, WarmPool

log = structlog.get_logger(__name__)
UNFIT = b""
REMEMBERED = 1000


@dataclass(frozen=True)
class Terms:
    """What workers agree on with their hub: where its blobs are, what they load, which versions they are.

    `greeting` is the digest of a blob to find there, `packages` have the stages.
    """

    blobs: str
    greeting: str
    versions: Mapping[str, str]
    packages: Sequence[str] = calls.OURS
    load: str = LOAD


def versions() -> dict[str, str]:
    """Return the versions that hub and workers must have in common: traces and models pass between them."""
    return {
        "resonator": version("resonator"),
        "apache-tvm": version("apache-tvm"),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


class Bench(WorkerPlugin):  # type: ignore[misc]
    """What a worker has besides Dask: a warm pool with a slot for each of its threads, and the parcels.

    `problem` is why it cannot work, a sentence, empty when it can.
    """

    idempotent = True
    """A hub that comes back finds its workers ready."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.problem = "it is not ready"

    async def setup(self, worker: Any) -> None:
        """Get ready before any call comes: TVM is loaded by then, about 4 s."""
        self._calls: dict[str, Future[Any]] = {}
        self._unwanted: deque[str] = deque(maxlen=REMEMBERED)
        self._pool: WarmPool | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="resonator-near-", ignore_cleanup_errors=True)
        self.problem = await asyncio.to_thread(self._prepare, worker.state.nthreads)
        if self.problem:
            log.warning("this worker is of no use to a hub", worker=worker.address, reason=self.problem)

    def _prepare(self, slots: int) -> str:
        found = versions()
        if differing := [name for name, wanted in self.terms.versions.items() if found[name] != wanted]:
            told = (f"{name} {found[name]}, the hub {self.terms.versions[name]}" for name in differing)
            return f"it has {'; '.join(told)}: install the same on both"
        try:
            self._parcels = Parcels.opened(self.terms.blobs, Path(self._folder.name))
            if not self._parcels.sees(self.terms.greeting):
                return f"it sees no blobs of the hub at {self.terms.blobs}: give --blobs what all of them see"
            self._pool = WarmPool(slots, packages=self.terms.packages, load=self.terms.load)
            self._pool.wait_until_warm()
        except ResonatorError as error:
            return f"it cannot work for this hub: {error}"
        return ""

    def teardown(self, worker: Any) -> None:
        """End the pool, and with it whatever runs in it; a worker that closes would not wait for more."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._folder.cleanup()

    def perform(self, key: str, parcel: bytes) -> bytes:
        """Run a call in the pool and return its outcome, packed: seconds, kind of error, value."""
        if self.problem or self._pool is None:
            return UNFIT
        function, arguments = calls.read(self._parcels.unpack(key, parcel), self.terms.packages)
        call = self._calls[key] = self._pool.submit(function, *arguments)
        if key in self._unwanted:
            call.cancel()
        try:
            came: tuple[str | None, Any] = calls.answer(function, call.result())
        except Exception as error:
            came = calls.refusal(error)
        finally:
            del self._calls[key]
        return self._parcels.pack(key, [getattr(call, "cpu_s", None) or 0.0, *came])

    def give_up(self, key: str) -> None:
        """End a call, or have it ended when it comes."""
        self._unwanted.append(key)
        if (call := self._calls.get(key)) is not None:
            call.cancel()


def perform(bench: str, key: str, parcel: bytes) -> bytes:
    """Run a call on the bench of that name, in a worker's thread; UNFIT is the answer of one that cannot."""
    found = _bench(bench, get_worker())
    return UNFIT if found is None else found.perform(key, parcel)


def give_up(bench: str, key: str, dask_worker: Any) -> None:
    """End a call at whichever worker has it; to be run on all of them."""
    if (found := _bench(bench, dask_worker)) is not None:
        found.give_up(key)


def problem(bench: str, dask_worker: Any) -> str:
    """Return why this worker cannot work for the hub, empty when it can."""
    found = _bench(bench, dask_worker)
    return "it was not made ready" if found is None else found.problem


def _bench(name: str, worker: Any) -> Bench | None:
    found: Bench | None = worker.plugins.get(name)
    return found
