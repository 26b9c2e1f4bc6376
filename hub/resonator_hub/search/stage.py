"""Performs Select: what is known of a task becomes the next candidates."""

from __future__ import annotations

import asyncio

from resonator.ids import candidate_id
from resonator_hub.scheduler.commands import Select
from resonator_hub.scheduler.events import CandidateFound, CandidatesSelected
from resonator_hub.search.proposal import Proposal, Tried, select
from resonator_hub.workshop import Workshop

TIMEOUT_S = 300.0
PARENTS = 32
"""How many of the best records the search is given to start from."""


async def perform(command: Select, shop: Workshop) -> CandidatesSelected:
    """Search for candidates that were neither tried nor are under way. Raises `ComputeFailed`."""
    began = shop.now()
    model = shop.records.cost_model(command.hardware)
    proposals: tuple[Proposal, ...] = await shop.compute.run(
        select,
        shop.blobs.get(command.workload),
        command.target,
        _parents(command, shop),
        None if model is None else shop.blobs.get(model),
        command.count,
        command.seed,
        _seen(command, shop),
        timeout_s=TIMEOUT_S,
    )
    found = await asyncio.to_thread(_keep, command, proposals, shop)  # dozens of files, each synced
    took_s = shop.now() - began
    return CandidatesSelected(shop.now(), command.job, command.task, command.round, found, took_s)


def _keep(command: Select, proposals: tuple[Proposal, ...], shop: Workshop) -> tuple[CandidateFound, ...]:
    found = tuple(
        CandidateFound(
            candidate=candidate_id(command.task, command.first + index),
            trace=shop.blobs.put(proposal.trace),
            features=shop.blobs.put(proposal.features),
            predicted=proposal.predicted,
        )
        for index, proposal in enumerate(proposals)
    )
    shop.catalog.keep_programs(
        {candidate.trace: proposal.digest for candidate, proposal in zip(found, proposals, strict=True)}
    )
    return found


def _parents(command: Select, shop: Workshop) -> tuple[Tried, ...]:
    return tuple(
        Tried(shop.blobs.get(known.trace), known.latency_s)
        for known in shop.records.top(command.hardware, command.workload, PARENTS)
        if known.latency_s is not None
    )


def _seen(command: Select, shop: Workshop) -> frozenset[str]:
    """Return the programs that need not be proposed: traces may differ where their outcome does not."""
    tried = {known.trace for known in shop.records.tried(command.hardware, command.workload)}
    unbuildable = shop.catalog.unbuildable(command.workload, command.target)
    return shop.catalog.programs(tried.union(command.exclude, unbuildable))
