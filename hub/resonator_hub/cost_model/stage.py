"""Performs Update: what was measured teaches the cost model of its kind of hardware."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from resonator_hub.cost_model.boosted import Sample, update
from resonator_hub.records import Learned
from resonator_hub.scheduler.commands import Update
from resonator_hub.scheduler.events import ModelUpdated
from resonator_hub.workshop import Workshop

TIMEOUT_S = 120.0
LATEST = 512
"""How many records each lesson repeats, so that new ones do not displace what was learned from others."""
FAILED_S = 1e6
"""What a kernel that failed counts as: slower than anything."""


class Updates:
    """One lesson at a time for each kind of hardware, since each extends the model of the one before."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def perform(self, command: Update, shop: Workshop) -> ModelUpdated:
        """Extend the model by the latest records. Raises `ComputeFailed`."""
        began = shop.now()
        async with self._locks[command.hardware]:
            samples = _samples(shop.records.learned(command.hardware, LATEST), shop)
            if samples:
                await self._extend(command.hardware, samples, shop)
        took_s = shop.now() - began
        return ModelUpdated(shop.now(), command.job, command.task, command.round, took_s)

    async def _extend(self, hardware: str, samples: tuple[Sample, ...], shop: Workshop) -> None:
        digest = shop.records.cost_model(hardware)
        previous = None if digest is None else shop.blobs.get(digest)
        model: bytes = await shop.compute.run(update, samples, previous, timeout_s=TIMEOUT_S)
        extended = shop.blobs.put(model)
        shop.records.set_cost_model(hardware, extended)
        if digest not in {None, extended}:
            shop.blobs.delete(digest)


def _samples(learned: tuple[Learned, ...], shop: Workshop) -> tuple[Sample, ...]:
    """Return what can be learned; failures only beside successes, since they have no scale of their own."""
    scaled = {record.workload for record in learned if record.latency_s is not None}
    return tuple(
        Sample(shop.blobs.get(record.features), record.latency_s or FAILED_S, record.workload)
        for record in learned
        if record.workload in scaled
    )
