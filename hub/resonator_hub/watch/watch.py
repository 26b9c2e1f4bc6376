"""Everything that looks at a running hub from outside: metrics, probes, and what systemd is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from resonator.service import Service
from resonator_hub.database import Database
from resonator_hub.watch.counts import Counts
from resonator_hub.watch.endpoint import Endpoint, Page, alive, is_loopback, parse_address
from resonator_hub.watch.gauges import AWAY, Gauges, Sources
from resonator_hub.watch.pulse import Pulse
from resonator_hub.watch.readiness import Readiness
from resonator_hub.watch.vitals import Vitals

if TYPE_CHECKING:
    from resonator_hub.hub import Hub

log = structlog.get_logger(__name__)


class Pool(Protocol):
    """Somewhere that steps are computed."""

    @property
    def warm(self) -> bool:
        """Whether calls begin at once."""


class Watch:
    """Watches one hub, which knows nothing of it; to be made before the hub runs."""

    def __init__(self, hub: Hub, database: Database, state: Path, pools: Sequence[Pool]) -> None:
        self._hub = hub
        self.service = Service()
        self.readiness = readiness = Readiness()
        self.registry = registry = CollectorRegistry(auto_describe=False)
        self.vitals = vitals = Vitals(database, state)
        self._pulse = Pulse(registry)
        bus = hub.peer.bus
        readiness.require("journal", lambda: "" if hub.prepared else "the journal is being read")
        readiness.require("broker", lambda: "" if bus.connected else "the broker is not connected")
        warm = "the compute processes are getting warm"
        readiness.require("compute", lambda: "" if all(pool.warm for pool in pools) else warm)
        readiness.require("database", lambda: vitals.signs.trouble)
        sources = Sources(
            census=hub.scheduler.census,
            inbox=hub.inbox.length,
            connected=lambda: bus.connected,
            refused=lambda: hub.peer.refused,
            rejected=lambda: hub.desk.rejections,
            telemetry=hub.registry.telemetry,
            signs=lambda: vitals.signs,
            unready=readiness.unready,
        )
        registry.register(Gauges(sources))
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        hub.observe(Counts(registry, hub.scheduler.status))

    @contextlib.asynccontextmanager
    async def running(self, address: str | None) -> AsyncIterator[int | None]:
        """Watch while the block runs, and serve the pages at `address`, if there is one; gives their port."""
        works = (self.vitals.run(), self._pulse.run(), self.service.keep_alive(self.summary))
        tasks = {asyncio.ensure_future(work) for work in works}
        async with contextlib.AsyncExitStack() as stack:
            try:
                yield None if address is None else await self._serve(stack, address)
            finally:
                self.service.stopping()
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    def pages(self) -> dict[str, Callable[[], Page]]:
        """Return what is served where."""
        return {"/metrics": self._metrics, "/healthz": alive, "/readyz": self._readyz}

    def summary(self) -> str:
        """Say in a sentence how the hub fares."""
        census = self._hub.scheduler.census()
        here = sum(standing.state not in AWAY for standing in census.devices)
        waiting = "; ".join(self.readiness.unready().values())
        said = f"{census.jobs.total()} jobs, {here} of {len(census.devices)} devices in sight"
        return f"{said}; {waiting}" if waiting else said

    async def _serve(self, stack: contextlib.AsyncExitStack, address: str) -> int:
        host, port = parse_address(address)
        opened = await stack.enter_async_context(Endpoint(self.pages()).opened(host, port))
        log.info(f"status at http://{host}:{opened}, for /metrics, /healthz and /readyz")
        if not is_loopback(host):
            log.warning(f"{host}:{opened} tells names of sites and boxes' models to whoever asks there")
        return opened

    def _metrics(self) -> Page:
        return Page(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self.registry))

    def _readyz(self) -> Page:
        unready = self.readiness.unready()
        status = HTTPStatus.SERVICE_UNAVAILABLE if unready else HTTPStatus.OK
        return Page.json(status, {"ready": not unready, "waiting_for": unready})
