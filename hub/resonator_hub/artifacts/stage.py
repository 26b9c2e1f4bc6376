"""Performs Compile and Deliver: best records become a bundle, then one with the evidence of its speed."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Mapping
from importlib.metadata import version
from statistics import median, pstdev

from resonator import bundle
from resonator_hub.artifacts.compiled import Best, Compiled, compile_model
from resonator_hub.artifacts.reference import answers
from resonator_hub.jobs.store import Job
from resonator_hub.scheduler.commands import Compile, Deliver
from resonator_hub.scheduler.events import BundleDelivered, Measured, ModelCompiled
from resonator_hub.workshop import Workshop

TIMEOUT_S = 1800.0


async def compile_(command: Compile, shop: Workshop) -> ModelCompiled:
    """Compile the model, and note what its outputs must be. Raises `ModelInvalid`, `ComputeFailed`."""
    began = shop.now()
    job = shop.jobs.get(command.job)
    model = await asyncio.to_thread(shop.blobs.get, job.model)
    shapes = dict(job.spec.spec.model.shapes)
    best = await asyncio.to_thread(_best, command, shop) if command.tuned else ()
    if command.settles:
        workloads = shop.catalog.workloads(command.job)
        share = job.spec.spec.budget.trials / max(1, len(workloads))
        shop.records.set_tuned(command.hardware, workloads, share)
    compiled: Compiled = await shop.compute.run(
        compile_model, model, shapes, command.target, best, timeout_s=TIMEOUT_S
    )
    if job.reference is None:
        expected: bytes = await shop.compute.run(
            answers, model, shapes, job.spec.spec.seed, timeout_s=TIMEOUT_S
        )
        shop.jobs.set_reference(command.job, await asyncio.to_thread(shop.blobs.put, expected))
    manifest = _manifest(job, command.target, compiled)
    digest, size = await asyncio.to_thread(_pack, compiled.library, manifest, shop)
    return ModelCompiled(shop.now(), command.job, command.tuned, digest, size, shop.now() - began)


async def deliver(command: Deliver, shop: Workshop) -> BundleDelivered:
    """Write the evidence into the bundle. Raises `BundleInvalid`."""
    began = shop.now()
    digest, size = await asyncio.to_thread(_with_evidence, command, shop)
    return BundleDelivered(shop.now(), command.job, digest, size, took_s=shop.now() - began)


def _with_evidence(command: Deliver, shop: Workshop) -> tuple[str, int]:
    manifest, library = bundle.read(shop.blobs.get(command.bundle))
    return _pack(library, manifest.model_copy(update=_evidence(command)), shop)


def _pack(library: bytes, manifest: bundle.Manifest, shop: Workshop) -> tuple[str, int]:
    """Keep a bundle; return its digest and size."""
    data = bundle.pack(library, manifest)
    return shop.blobs.put(data), len(data)


def _best(command: Compile, shop: Workshop) -> tuple[Best, ...]:
    found = (
        (workload, shop.records.best(command.hardware, workload))
        for workload in shop.catalog.workloads(command.job)
    )
    return tuple(
        Best(shop.blobs.get(workload), shop.blobs.get(known.trace)) for workload, known in found if known
    )


def _manifest(job: Job, target: str, compiled: Compiled) -> bundle.Manifest:
    return bundle.Manifest(
        name=job.spec.metadata.name,
        job=job.job,
        target=target,
        inputs=compiled.inputs,
        outputs=compiled.outputs,
        records=compiled.tuned_tasks,
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    return {
        "resonator": version("resonator"),
        "tvm": version("apache-tvm"),
        "python": platform.python_version(),
    }


def _evidence(command: Deliver) -> Mapping[str, object]:
    tuned = command.tuned
    return {
        "device": tuned.device,
        "trials": command.trials,
        "conditions": tuned.conditions.model_dump(),
        "latency": bundle.Latency(
            untuned=_latency(command.untuned), tuned=_latency(tuned), spread=pstdev(tuned.latencies)
        ),
    }


def _latency(result: Measured | None) -> float | None:
    return median(result.latencies) if result is not None and result.latencies else None
