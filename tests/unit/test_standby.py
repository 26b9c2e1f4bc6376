"""A hub that stands by answers probes: it is alive, and says who leads."""

from __future__ import annotations

import asyncio
import json

from fakes.brokers import free_port
from resonator_hub.watch.standby import standing_by


async def asked(port: int, path: str) -> tuple[int, dict[str, object]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    head, _, body = (await asyncio.wait_for(reader.read(), 10.0)).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), json.loads(body)


async def test_it_is_alive_and_not_ready_and_says_who_leads() -> None:
    port = free_port()
    async with standing_by(str(port), lambda: "hub-a/7 leads (term 3)"):
        assert await asked(port, "/healthz") == (200, {"alive": True})
        status, said = await asked(port, "/readyz")
    assert status == 503
    assert said == {"ready": False, "waiting_for": {"leadership": "hub-a/7 leads (term 3)"}}


async def test_nobody_need_be_answered() -> None:
    asked_for: list[str] = []
    async with standing_by(None, lambda: asked_for.append("who leads") or ""):
        pass
    assert asked_for == [], "there is no service manager that listens"
