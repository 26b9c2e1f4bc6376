"""What is told of a hub that stands by while another leads: it is alive, and ready for nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

from resonator.service import Service
from resonator_hub.watch.endpoint import Endpoint, Page, alive, parse_address


@contextlib.asynccontextmanager
async def standing_by(address: str | None, told: Callable[[], str]) -> AsyncIterator[None]:
    """Answer probes at `address`, if there is one, while the block runs; `told` says who leads.

    The service manager hears that the start is over: who stands by may do so for months.
    """

    def ready() -> Page:
        waiting = {"ready": False, "waiting_for": {"leadership": told()}}
        return Page.json(HTTPStatus.SERVICE_UNAVAILABLE, waiting)

    async with contextlib.AsyncExitStack() as stack:
        if address is not None:
            pages = {"/healthz": alive, "/readyz": ready}
            await stack.enter_async_context(Endpoint(pages).opened(*parse_address(address)))
        service = Service()
        service.ready()
        telling = asyncio.ensure_future(service.keep_alive(told))
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.wait({telling})
