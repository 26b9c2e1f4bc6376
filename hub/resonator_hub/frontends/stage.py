"""Performs Extract: a job's model becomes tasks."""

from __future__ import annotations

import asyncio
import math

from resonator.ids import task_id
from resonator_hub.frontends.model import Extraction
from resonator_hub.frontends.onnx import extract
from resonator_hub.scheduler.commands import Extract
from resonator_hub.scheduler.events import TaskFound, TasksExtracted
from resonator_hub.workshop import Workshop

TIMEOUT_S = 900.0


async def perform(command: Extract, shop: Workshop) -> TasksExtracted:
    """Extract the tasks and keep their workloads. Raises `ModelInvalid`, `ComputeFailed`."""
    began = shop.now()
    job = shop.jobs.get(command.job)
    model = await asyncio.to_thread(shop.blobs.get, job.model)
    shapes = dict(job.spec.spec.model.shapes)
    extraction: Extraction = await shop.compute.run(
        extract, model, shapes, command.target, timeout_s=TIMEOUT_S
    )
    budget = job.spec.spec.budget
    share = math.inf if budget.again else budget.trials / max(1, len(extraction.tasks))
    tasks = await asyncio.to_thread(_keep, command, extraction, share, shop)
    return TasksExtracted(shop.now(), command.job, tasks, took_s=shop.now() - began)


def _keep(command: Extract, extraction: Extraction, share: float, shop: Workshop) -> tuple[TaskFound, ...]:
    tasks = tuple(_found(command, index, extraction, share, shop) for index in range(len(extraction.tasks)))
    shop.catalog.keep_tasks(command.job, {task.task: task.workload for task in tasks})
    return tasks


def _found(command: Extract, index: int, extraction: Extraction, share: float, shop: Workshop) -> TaskFound:
    """Return a task, which is settled where earlier jobs gave its workload this `share` of trials or more."""
    workload = extraction.tasks[index]
    digest = shop.blobs.put(workload.module)
    shop.catalog.keep_likeness(digest, workload.structure, workload.extents)
    best = shop.records.best(command.hardware, digest)
    return TaskFound(
        task=task_id(command.job, index),
        name=workload.name,
        workload=digest,
        weight=workload.weight,
        flops=workload.flops,
        known_s=None if best is None else best.latency_s,
        settled=best is not None and shop.records.tuned(command.hardware, digest) >= share,
    )
