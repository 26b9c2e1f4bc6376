"""A hub whose kernels were built before: all of the service, but no compute to wait for.

`python prebuilt_hub.py KERNELS STATE PORT`; at a broker not its own: `mqtt[s]://HOST:PORT [IDENTITY]`.
Everything else is what `resonator hub` runs: scheduler, journal, records, bus and broker. A job's search
proposes the kernels in the folder over and over, each time with other bytes at its end, so that every one
travels to the device; its tuned model is the untuned one. STATE/refused.json tells what it refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mixed_kernels

from resonator.bus.blobs import BlobStore
from resonator.bus.mqtt import MqttBus
from resonator.trust import Credentials
from resonator.trust.seal import Seal
from resonator_hub.artifacts import Compiled
from resonator_hub.broker import EmbeddedBroker
from resonator_hub.build import Kernel
from resonator_hub.database import Database, sqlite_url
from resonator_hub.frontends import Extraction, ModelCard, Workload
from resonator_hub.frontends.onnx import check
from resonator_hub.hub import Hub, Identity
from resonator_hub.journal import JOURNAL
from resonator_hub.rules import Rules
from resonator_hub.search import Proposal
from resonator_hub.settings import HubSettings


class Prebuilt:
    """Computes the stages by looking into a folder of kernels."""

    def __init__(self, folder: Path) -> None:
        self._built = mixed_kernels.read(folder)
        self._proposed = 0

    async def run(self, function: Callable[..., Any], *arguments: object, timeout_s: float) -> Any:
        """Answer for a stage."""
        return getattr(self, f"_{function.__name__}")(*arguments)

    def _extract(self, model: bytes, _shapes: object, _target: str) -> Extraction:
        operator = Workload("prebuilt", 1, model, _digest(model), flops=1e6)
        return Extraction((operator,), self._built.model.inputs, self._built.model.outputs)

    def _select(self, *asked: Any) -> tuple[Proposal, ...]:
        count = asked[4]
        numbers = range(self._proposed, self._proposed + count)
        self._proposed += count
        traces = [b"%d" % number for number in numbers]
        return tuple(Proposal(trace, _digest(trace), b"features of " + trace, None) for trace in traces)

    def _build(self, _workload: bytes, trace: bytes, _target: str) -> Kernel:
        kernel = self._built.kernels[int(trace) % len(self._built.kernels)]
        library = kernel.library + trace
        return Kernel(library, _digest(library), kernel.arguments)

    def _update(self, *_: object) -> bytes:
        return self._built.cost_model

    def _compile_model(self, *_: object) -> Compiled:
        return self._built.model

    def _answers(self, *_: object) -> bytes:
        return self._built.answers

    def _check(self, model: bytes, shapes: Mapping[str, Sequence[int]]) -> ModelCard:
        return check(model, shapes)


async def main(kernels: Path, state: Path, where: str, identity: Path | None = None) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    credentials = None if identity is None else Credentials.load(identity)
    async with contextlib.AsyncExitStack() as stack:
        database = Database.open(sqlite_url(state / JOURNAL))
        stack.callback(database.close)
        url = where if "://" in where else await _broker(int(where), stack)
        told = _identity(credentials)
        tls = credentials.context() if credentials else None
        bus = MqttBus(url, client_id="hub", will=told.will, tls=tls)
        hub = Hub(told, bus, Prebuilt(kernels), database, BlobStore(state / "blobs"))
        await hub.prepare()
        await stack.enter_async_context(bus)
        await hub.run(stop)
    (state / "refused.json").write_text(json.dumps(hub.peer.refused))


async def _broker(port: int, stack: contextlib.AsyncExitStack) -> str:
    broker = EmbeddedBroker(port=port)
    await broker.start()
    stack.push_async_callback(broker.stop)
    return broker.url


def _identity(credentials: Credentials | None) -> Identity:
    settings = HubSettings()
    rules = Rules(settings.policy, settings.batch, settings.window)
    if credentials is None:
        return Identity(settings.site, settings.hub, 1, 1, rules)
    party = credentials.party
    return Identity(party.site, party.name, 1, 1, rules, Seal(credentials))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    os.environ["RESONATOR_HUB_CONFIG"] = os.devnull
    kernels, state, where, *identity = sys.argv[1:]
    Path(state).mkdir(parents=True)
    asyncio.run(main(Path(kernels), Path(state), where, *map(Path, identity)))
