"""A hub whose compute takes no time: `python -m load.hub BROKER STATE TASKS`.

Everything else is what `resonator hub` runs. Every job's model has TASKS operators. Once a second it prints
what has come in and gone out as a line of JSON, and once more at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from load.gauges import allow_sockets, print_each_second
from resonator.bus.blobs import BlobStore
from resonator.bus.mqtt import MqttBus
from resonator.bus.port import Delivery
from resonator.cli import logs
from resonator.messages import DeviceState
from resonator.tensors import TensorSpec
from resonator_hub.artifacts import Compiled
from resonator_hub.build import Kernel
from resonator_hub.cost_model import Sample, pack_features, update
from resonator_hub.database import Database, sqlite_url
from resonator_hub.frontends import Extraction, ModelCard, Workload
from resonator_hub.frontends.onnx import check
from resonator_hub.hub import Hub, Identity
from resonator_hub.journal import JOURNAL
from resonator_hub.rules import Rules
from resonator_hub.search import Proposal
from resonator_hub.settings import HubSettings

KERNEL_BYTES, RANDOM_BYTES = 25_000, 9_000
"""How large a kernel of a real run was in the middle, and about how large when it is compressed."""
TRACE_BYTES, FEATURE_BYTES = 2_000, 350
_STATE = DeviceState.wire.encode()
TENSOR = TensorSpec(name="x", shape=(64,), dtype="float32")


class Instant:
    """Computes the stages by making something up."""

    def __init__(self, tasks: int) -> None:
        self._tasks = tasks
        self._random = random.Random(0)
        samples = [Sample(pack_features(np.full((1, 164), row)), 1e-3 * row, "") for row in range(1, 9)]
        self._cost_model = update(samples, None)

    async def run(self, function: Callable[..., Any], *arguments: object, timeout_s: float) -> Any:
        """Answer for a stage."""
        return getattr(self, f"_{function.__name__}")(*arguments)

    def _extract(self, model: bytes, _shapes: object, _target: str) -> Extraction:
        modules = [b"%d %b" % (number, hashlib.sha256(model).digest()) for number in range(self._tasks)]
        tasks = tuple(
            Workload(f"operator{number}", 1, module, _digest(module), flops=1e6)
            for number, module in enumerate(modules)
        )
        return Extraction(tasks, (TENSOR,), (TENSOR,))

    def _select(self, *asked: Any) -> tuple[Proposal, ...]:
        traces = [self._random.randbytes(TRACE_BYTES) for _ in range(asked[4])]
        features = self._random.randbytes(FEATURE_BYTES - 16)
        return tuple(Proposal(trace, _digest(trace), trace[:16] + features, None) for trace in traces)

    def _build(self, _workload: bytes, trace: bytes, _target: str) -> Kernel:
        library = trace[:16] + self._random.randbytes(RANDOM_BYTES - 16)
        library += bytes(KERNEL_BYTES - len(library))
        return Kernel(library, _digest(library), (TENSOR, TENSOR))

    def _update(self, *_: object) -> bytes:
        return self._cost_model

    def _compile_model(self, *_: object) -> Compiled:
        return Compiled(self._random.randbytes(KERNEL_BYTES), (TENSOR,), (TENSOR,), 0)

    def _answers(self, *_: object) -> bytes:
        return self._random.randbytes(512)

    def _check(self, model: bytes, shapes: Mapping[str, Sequence[int]]) -> ModelCard:
        return check(model, shapes)


class CountingBus(MqttBus):
    """Counts what is taken in and given out by channel, and notes when each device's state was heard."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.received: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.states: dict[str, float] = {}
        """When a device's state was heard first since this hub connected last."""
        self._counted = self._connection
        self.connected_at = 0.0
        self.on_connect(self._connected_again)

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """Yield what arrives; a message counts when the one before it has been handled."""
        async for delivery in super().deliveries():
            channel = delivery.topic.rpartition("/")[2]
            self.received[channel] += 1
            if self._connection is not self._counted:
                self._counted = self._connection
                self.states.clear()
            if channel == "state" and _STATE in delivery.payload:
                self.states.setdefault(delivery.topic, time.monotonic())
            yield delivery

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Count, and publish."""
        self.sent[topic.rpartition("/")[2]] += 1
        await super().publish(topic, payload, qos=qos, retain=retain)

    async def _connected_again(self) -> None:
        self.connected_at = time.monotonic()


async def main(broker: str, state: Path, tasks: int) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = HubSettings()
    rules = Rules(settings.policy, settings.batch, settings.window)
    told = Identity(settings.site, settings.hub, 1, 8, rules)
    async with contextlib.AsyncExitStack() as stack:
        database = Database.open(sqlite_url(state / JOURNAL))
        stack.callback(database.close)
        bus = CountingBus(broker, client_id="hub", will=told.will)
        hub = Hub(told, bus, Instant(tasks), database, BlobStore(state / "blobs"))
        await hub.prepare()
        await stack.enter_async_context(bus)
        telling = asyncio.create_task(print_each_second(lambda: tell(hub, bus)))
        try:
            await hub.run(stop)
        finally:
            telling.cancel()
        print(json.dumps(tell(hub, bus)), flush=True)


def tell(hub: Hub, bus: CountingBus) -> dict[str, object]:
    """Return what is worth telling."""
    return {
        "received": dict(bus.received),
        "sent": dict(bus.sent),
        "refused": dict(hub.peer.refused),
        "states": len(bus.states),
        "last_state": max(bus.states.values(), default=0.0),
        "connected_at": bus.connected_at,
        "devices": Counter(report.state for report in hub.scheduler.devices()),
    }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    allow_sockets()
    logs.configure()
    os.environ["RESONATOR_HUB_CONFIG"] = os.devnull
    where, folder, tasks = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    asyncio.run(main(where, Path(folder), int(tasks)))
