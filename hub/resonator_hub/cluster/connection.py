"""The connection to a Dask scheduler, and the workers behind it made ready for this hub."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from concurrent.futures import CancelledError
from dataclasses import asdict
from typing import Any

import structlog
from distributed import Client, Security

from resonator.errors import InputInvalid, ResonatorError, Unreachable
from resonator_hub.calls import ComputeFailed
from resonator_hub.cluster import worker
from resonator_hub.cluster.worker import Bench, Terms

log = structlog.get_logger(__name__)
for _name in ("distributed", "distributed.client"):
    logging.getLogger(_name).setLevel(
        logging.CRITICAL
    )  # a hub says itself, in a line, what these tell in fifty
CONNECT_S = 10.0
WORKERS_S = 30.0
"""How long a hub that starts waits for the first worker."""


LOOK_S = 10.0
"""How often it looks which workers are fit for its calls."""
READY_S = 60.0
"""How long a call waits for workers that are made ready."""


class Connection:
    """A client of the scheduler at `address`, tcp:// or tls://, that is made anew when it was lost.

    Certificates for tls:// are those of Dask's own configuration. Safe to use from many threads.
    """

    def __init__(self, address: str, terms: Terms) -> None:
        self._address = address
        self._terms = terms
        told = json.dumps(asdict(terms), sort_keys=True)
        self.bench = f"resonator-{hashlib.sha256(told.encode()).hexdigest()[:16]}"
        """The name under which workers have what this hub's terms ask for."""
        self._client: Any = None
        self._connecting = threading.Lock()
        self._closed = False
        self._fit: list[str] | None = None
        self._looked_at = time.monotonic()
        self._looked = threading.Event()
        """Cleared while somebody looks at the workers."""
        self._looked.set()
        self._looking = threading.Lock()

    def open(self) -> int:
        """Connect, and return how many threads the workers have.

        Raises Unreachable when there are none, InputInvalid without the certificates for a tls:// address.
        """
        if self._address.startswith("tls://"):
            _need_certificates()
        try:
            self._client = self._connect()
        except (OSError, TimeoutError) as error:
            told = f"compute: no Dask scheduler answered at {self._address} within {CONNECT_S:g} s"
            raise Unreachable(told) from error
        try:
            self._client.wait_for_workers(1, timeout=WORKERS_S)
        except TimeoutError as error:
            told = f"compute: the Dask scheduler at {self._address} had no worker within {WORKERS_S:g} s"
            self.close()
            raise Unreachable(told) from error
        return self.threads()

    def threads(self) -> int:
        """Return how many threads the workers have at present."""
        return sum(self.client().nthreads().values())

    def make_ready(self) -> None:
        """Have all workers, also those to come, load what stages need. Raises ComputeFailed if one cannot."""
        client = self.client()
        self._register(client)
        problems = client.run(worker.problem, self.bench)
        if unfit := {where: problem for where, problem in problems.items() if problem}:
            where, problem = min(unfit.items())
            more = f" (and {len(unfit) - 1} more)" if len(unfit) > 1 else ""
            raise ComputeFailed(f"The Dask worker at {where}{more} is of no use: {problem.rstrip('.')}.")

    def fit(self) -> list[str] | None:
        """Return the workers that can run calls, None if all can: of another version some may have joined."""
        if time.monotonic() > self._looked_at + LOOK_S:
            self._begin_to_look()
        return self._fit

    def look_again(self) -> None:
        """Look at the workers before the next call: one was not fit for its own."""
        self._begin_to_look()
        self._looked.wait(READY_S)

    def client(self) -> Client:
        """Return the client, connected again if need be. Raises OSError while there is no scheduler."""
        with self._connecting:
            if self._closed:
                raise ComputeFailed("The connection to the Dask cluster is closed.")
            if self._client is None:
                self._client = self._connect()
                self._register(self._client)
                log.info("connected to the Dask scheduler again", scheduler=self._address)
            return self._client

    def lost(self, client: Any) -> None:
        """Have a new client made when one is wanted next: the scheduler behind this one is gone."""
        with self._connecting:
            if self._client is client:
                self._client = None
                client.close(timeout=CONNECT_S)

    def close(self) -> None:
        """Let go of the cluster, which goes on without this hub."""
        with self._connecting:
            self._closed = True
            if self._client is not None:
                self._client.close(timeout=CONNECT_S)

    def _begin_to_look(self) -> None:
        """Have the workers looked at aside: one that hangs would hold up the calls to all."""
        with self._looking:
            if self._looked.is_set():
                self._looked.clear()
                self._looked_at = time.monotonic()
                threading.Thread(target=self._look, name="cluster-look", daemon=True).start()

    def _look(self) -> None:
        try:
            client = self.client()
            problems = client.run(worker.problem, self.bench, on_error="return")
            fit = [where for where, problem in problems.items() if problem == ""]
            if not fit:
                self._register(client)  # a scheduler that was started again does not know of us
            self._fit = fit if fit and len(fit) < len(problems) else None
        except (OSError, CancelledError, ResonatorError) as error:
            log.warning("the Dask workers could not be looked at", reason=str(error))
        finally:
            self._looked.set()

    def _connect(self) -> Client:
        return Client(self._address, timeout=CONNECT_S, set_as_default=False, security=Security())

    def _register(self, client: Client) -> None:
        client.register_plugin(Bench(self._terms), name=self.bench)


def _need_certificates() -> None:
    try:
        found = Security().get_connection_args("client")["ssl_context"]
    except (OSError, ValueError) as error:
        raise InputInvalid(f"compute: the certificates for tls:// cannot be used: {error}") from error
    if found is None:
        raise InputInvalid(
            "compute: tls:// takes certificates, named in Dask's configuration: "
            "distributed.comm.tls.ca-file, .client.cert and .client.key"
        )
