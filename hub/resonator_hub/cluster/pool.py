"""An executor whose slots are the threads of a Dask cluster's workers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import structlog
from distributed import Client, KilledWorker

from resonator.bus.blobs import Blobs
from resonator.errors import ResonatorError
from resonator_hub import calls
from resonator_hub.calls import ComputeFailed
from resonator_hub.cluster import worker
from resonator_hub.cluster.connection import Connection
from resonator_hub.cluster.parcels import Parcels
from resonator_hub.cluster.worker import Terms, versions
from resonator_hub.pool import LOAD

T = TypeVar("T")

log = structlog.get_logger(__name__)
AT_ONCE = 1024
"""Calls that may be under way; each has a thread here that waits for it."""
RETRIES = 2
"""How often Dask tries a call elsewhere that its worker could not run."""
END_S = 5.0
"""How long a hub that is stopped waits for workers to hear of it."""
ATTEMPTS = 3
"""How often a call is made, should its scheduler be lost, or its worker turn out not to be fit for it."""


def _nothing() -> None:
    """Do nothing."""


class _Errand(Future[Any]):
    """A call on the cluster; unlike other futures it can be cancelled while it runs: its process is killed.

    `cpu_s` is the processor time it took, None until its worker has told.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.key = f"{getattr(function, '__name__', 'call')}-{uuid.uuid4().hex}"
        self.message = calls.call(function, arguments)
        self.signature = calls.signature(function)
        self.cpu_s: float | None = None
        self.unwanted = False
        self.end: Callable[[], object] = _nothing
        """Ends what runs elsewhere, without waiting for it."""

    @property
    def name(self) -> str:
        """What the stage is called."""
        return self.key.partition("-")[0]

    def cancel(self) -> bool:
        if super().cancel():
            return True
        if self.done():
            return False
        self.unwanted = True
        self.end()
        return False


class ClusterPool(Executor):
    """Runs stages on the workers of the Dask scheduler at `address`; their bytes travel by way of `blobs`.

    `where` is where those are, as the workers reach them. A worker that dies costs its calls the time that
    they had taken: they run again on another.
    """

    def __init__(
        self,
        address: str,
        where: str,
        blobs: Blobs,
        *,
        packages: Sequence[str] = calls.OURS,
        load: str = LOAD,
    ) -> None:
        self._parcels = Parcels(where, blobs)
        terms = Terms(where, self._parcels.greet(), versions(), tuple(packages), load)
        self._cluster = Connection(address, terms)
        self._waiting = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="cluster")
        self._running: dict[Future[None], _Errand] = {}

    def open(self) -> int:
        """Connect, and return how many calls can run at a time. Raises Unreachable."""
        return self._cluster.open()

    def wait_until_warm(self) -> None:
        """Block until the workers have loaded TVM, about 4 s. Raises `ComputeFailed` if one is of no use."""
        try:
            self._cluster.make_ready()
        except OSError as error:
            raise ComputeFailed(f"The Dask workers could not be made ready: {error}") from error

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run `fn(*args)`, a stage, on some worker. Keyword arguments are not taken.

        Raises TypeError for what is no stage, or for arguments that are not what its annotations say.
        """
        if kwargs:
            raise TypeError("a compute pool takes positional arguments only")
        errand = _Errand(fn, args)
        run = self._waiting.submit(self._run, errand)
        self._running[run] = errand
        run.add_done_callback(self._running.pop)
        return errand

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let go of the cluster, which goes on; calls under way are given up."""
        if cancel_futures:
            for errand in tuple(self._running.values()):
                errand.cancel()
            wait_for(tuple(self._running), END_S)
        self._cluster.close()
        self._waiting.shutdown(wait, cancel_futures=cancel_futures)

    def _run(self, errand: _Errand) -> None:
        """See a call through, from packing it to settling it."""
        if not errand.set_running_or_notify_cancel():
            return
        try:
            parcel = self._parcels.pack(errand.key, errand.message)
            outcome = calls.outcome(
                self._parcels.unpack(errand.key, self._carried_out(errand, parcel)), errand.signature
            )
        except ResonatorError as error:
            errand.set_exception(ComputeFailed(f"{errand.name} did not finish: {error}"))
        except Exception as error:
            errand.set_exception(error)
        else:
            errand.cpu_s = outcome.cpu_s
            if outcome.error is not None:
                errand.set_exception(outcome.error)
            else:
                errand.set_result(outcome.result)
        finally:
            self._clear(errand)

    def _carried_out(self, errand: _Errand, parcel: bytes) -> bytes:
        """Return what a worker answers to a call, which is made again if the cluster failed it."""
        for attempt in range(ATTEMPTS):
            client = self._client(errand)
            try:
                if (answer := self._ask(client, errand, parcel, attempt)) != worker.UNFIT:
                    return answer
                self._cluster.look_again()
            except KilledWorker as error:
                told = f"its workers died one after the other, at last {error.last_worker}"
                raise ComputeFailed(told) from None
            except (CancelledError, OSError) as error:
                if not errand.unwanted:
                    log.warning("a call was lost with its scheduler", call=errand.key, reason=str(error))
                    self._cluster.lost(client)
        raise ComputeFailed(f"the cluster failed it {ATTEMPTS} times")

    def _client(self, errand: _Errand) -> Client:
        """Return the client; while there is no scheduler a call waits for one, until its time is over."""
        while not errand.unwanted:
            with suppress(OSError):
                return self._cluster.client()
        raise ComputeFailed("it was given up")

    def _ask(self, client: Client, errand: _Errand, parcel: bytes, attempt: int) -> bytes:
        future = client.submit(
            worker.perform,
            self._cluster.bench,
            errand.key,
            parcel,
            key=f"{errand.key}-{attempt}",
            workers=self._cluster.fit(),
            retries=RETRIES,
        )
        give_up = partial(self._give_up, client, errand.key, future)
        errand.end = lambda: self._waiting.submit(give_up)
        if errand.unwanted:
            errand.end()
        try:
            answer: bytes = future.result()
            return answer
        finally:
            future.release()  # or Dask would make it again, should its worker die
            errand.end = _nothing

    def _give_up(self, client: Client, key: str, future: Any) -> None:
        """Have a call ended wherever it is: Dask forgets it, its worker kills the process."""
        try:
            future.cancel(force=True)
            client.run(worker.give_up, self._cluster.bench, key, on_error="ignore")
        except (OSError, CancelledError) as error:
            log.warning("a call could not be given up", call=key, reason=str(error))

    def _clear(self, errand: _Errand) -> None:
        try:
            self._parcels.clear(errand.key)
        except ResonatorError as error:
            log.warning("what a call had left is still there", call=errand.key, reason=str(error))
