"""The bus: messages a second and the way of one message, on the embedded broker and on Mosquitto."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from figures import Figure, keep

from resonator.bus.mqtt import MqttBus
from resonator.bus.port import Delivery

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fakes.brokers import embedded, find_mosquitto, mosquitto

MESSAGES, AT_ONCE, SINGLY = 3_000, 50, 300
PAYLOAD = bytes(1024)


async def measure(url: str, broker: str) -> list[Figure]:
    """Publish 1 KiB at QoS 1 from one client to another, many at once and then one by one."""
    async with MqttBus(url) as publisher, MqttBus(url) as subscriber:
        await subscriber.subscribe("bench/#")
        await asyncio.gather(publisher.wait_connected(5), subscriber.wait_connected(5))
        deliveries = subscriber.deliveries()
        throughput = await _throughput(publisher, deliveries)
        ways = sorted([await _way(publisher, deliveries) for _ in range(SINGLY)])
    return [
        Figure(f"{broker}: 1 KiB at QoS 1, {AT_ONCE} at once", throughput, "messages/s"),
        Figure(f"{broker}: publish to delivery, median", statistics.median(ways) * 1e3, "ms"),
        Figure(f"{broker}: publish to delivery, p99", ways[int(0.99 * SINGLY)] * 1e3, "ms"),
    ]


async def _throughput(publisher: MqttBus, deliveries: AsyncIterator[Delivery]) -> float:
    async def drain() -> None:
        for _ in range(MESSAGES):
            await anext(deliveries)

    began = time.perf_counter()
    draining = asyncio.ensure_future(drain())
    for _ in range(MESSAGES // AT_ONCE):
        await asyncio.gather(*(publisher.publish("bench/a", PAYLOAD) for _ in range(AT_ONCE)))
    await draining
    return MESSAGES / (time.perf_counter() - began)


async def _way(publisher: MqttBus, deliveries: AsyncIterator[Delivery]) -> float:
    began = time.perf_counter()
    publishing = asyncio.ensure_future(publisher.publish("bench/a", PAYLOAD))
    await anext(deliveries)
    took_s = time.perf_counter() - began
    await publishing
    return took_s


async def main() -> None:
    async with embedded() as broker:
        figures = await measure(broker.url, "embedded broker")
    if find_mosquitto():
        async with mosquitto() as server:
            figures += await measure(server.url, "Mosquitto")
    keep("bus", figures)


if __name__ == "__main__":
    asyncio.run(main())
