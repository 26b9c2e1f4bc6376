"""Performs Update: what was measured teaches the cost model of its kind of hardware."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from resonator_hub.cost_model.boosted import update
from resonator_hub.cost_model.memory import Sample
from resonator_hub.records import Lesson
from resonator_hub.scheduler.commands import Update
from resonator_hub.scheduler.events import ModelUpdated
from resonator_hub.workshop import Workshop

TIMEOUT_S = 120.0
FAILED = 10.0
"""How many times slower than the slowest of its task a kernel that failed counts."""


class Updates:
    """One lesson at a time for each kind of hardware, since each extends the model of the one before."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def perform(self, command: Update, shop: Workshop) -> ModelUpdated:
        """Teach the model what was measured since its last lesson. Raises `ComputeFailed`."""
        began = shop.now()
        async with self._locks[command.hardware]:
            await _teach(command.hardware, shop)
        took_s = shop.now() - began
        return ModelUpdated(shop.now(), command.job, command.task, command.round, took_s)


async def _teach(hardware: str, shop: Workshop) -> None:
    lessons = shop.records.lessons(hardware)
    samples = await asyncio.to_thread(_samples, hardware, lessons, shop)  # a file each
    if not samples:
        return
    known = shop.records.cost_model(hardware)
    previous = None if known is None else await asyncio.to_thread(shop.blobs.get, known)
    model: bytes = await shop.compute.run(update, samples, previous, timeout_s=TIMEOUT_S)
    extended = await asyncio.to_thread(shop.blobs.put, model)
    shop.records.set_cost_model(hardware, extended, lessons[-1].record)
    if known is not None and known != extended:
        await asyncio.to_thread(shop.blobs.delete, known)


def _samples(hardware: str, lessons: Sequence[Lesson], shop: Workshop) -> list[Sample]:
    return [sample for lesson in lessons if (sample := _sample(hardware, lesson, shop)) is not None]


def _sample(hardware: str, lesson: Lesson, shop: Workshop) -> Sample | None:
    """Return what a record teaches; a failure teaches nothing where no kernel of its task has succeeded."""
    latency_s = lesson.latency_s
    if latency_s is None:
        slowest = shop.records.slowest(hardware, lesson.workload)
        if slowest is None:
            return None
        latency_s = slowest * FAILED
    return Sample(shop.blobs.get(lesson.features), latency_s, lesson.workload)
