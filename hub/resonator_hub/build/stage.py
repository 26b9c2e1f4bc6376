"""Performs Build: a candidate becomes a kernel that devices can be given."""

from __future__ import annotations

import asyncio

from resonator.bus.blobs import BlobMissing
from resonator.failures import Failure
from resonator_hub.build.kernel import Kernel, build
from resonator_hub.scheduler.commands import Build
from resonator_hub.scheduler.events import BuildFailed, KernelBuilt
from resonator_hub.workshop import Workshop

TIMEOUT_S = 20.0


async def perform(command: Build, shop: Workshop) -> KernelBuilt | BuildFailed:
    """Build the kernel and keep it, unless it is there already. Raises `LinkerMissing`, `ComputeFailed`."""
    began = shop.now()
    digest = shop.catalog.kernel(command.workload, command.trace, command.target)
    if digest is not None and (size := await asyncio.to_thread(_size, digest, shop)):
        return KernelBuilt(shop.now(), command.job, command.candidate, digest, size, shop.now() - began)
    kernel: Kernel | Failure = await shop.compute.run(
        build, *await asyncio.to_thread(_inputs, command, shop), command.target, timeout_s=TIMEOUT_S
    )
    took_s = shop.now() - began
    if isinstance(kernel, Failure):
        shop.catalog.keep_unbuildable(command.candidate, command.trace, command.workload, command.target)
        return BuildFailed(shop.now(), command.job, command.candidate, kernel, took_s)
    digest = await asyncio.to_thread(shop.blobs.put, kernel.library)
    shop.catalog.keep_kernel(command.workload, command.trace, command.target, digest, kernel.arguments)
    size = len(kernel.library)
    return KernelBuilt(shop.now(), command.job, command.candidate, digest, size, took_s)


def _inputs(command: Build, shop: Workshop) -> tuple[bytes, bytes]:
    return shop.blobs.get(command.workload), shop.blobs.get(command.trace)


def _size(digest: str, shop: Workshop) -> int:
    """Return how many bytes a kernel has; 0 for one that is missing or damaged and must be built again."""
    try:
        return len(shop.blobs.get(digest))
    except BlobMissing:
        return 0
