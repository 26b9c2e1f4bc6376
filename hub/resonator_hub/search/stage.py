"""Performs Select: what is known of a task becomes the next candidates."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from resonator.ids import candidate_id
from resonator_hub import cost_model
from resonator_hub.scheduler.commands import Select
from resonator_hub.scheduler.events import CandidateFound, CandidatesSelected
from resonator_hub.search.proposal import Proposal, select
from resonator_hub.search.tried import Tried
from resonator_hub.workshop import Workshop

TIMEOUT_S = 300.0
PARENTS = 32
"""How many of the best records the search is given to start from."""
HINTS = 16
"""How many records of similar workloads it is given, while the task has fewer of its own than this."""
CLAIM_S = 120.0
"""For how long what was proposed is taken to be under way, before it has a record."""

_Workload = tuple[str, str]
"""Hardware and workload: what shares its candidates."""


class Selects:
    """One search at a time for each workload on a kind of hardware, so that none proposes what another did.

    Jobs of one workload, or rounds of one task, would otherwise build and measure the same programs: the
    first round of two jobs with one seed is the same.
    """

    def __init__(self) -> None:
        self._locks: defaultdict[_Workload, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._claims: defaultdict[_Workload, dict[str, float]] = defaultdict(dict)
        """The programs proposed of late, and when."""

    async def perform(self, command: Select, shop: Workshop) -> CandidatesSelected:
        """Search for candidates that were neither tried nor are under way. Raises `ComputeFailed`."""
        began = shop.now()
        of = (command.hardware, command.workload)
        async with self._locks[of]:
            claimed = {program for program, at in self._claims[of].items() if shop.now() - at < CLAIM_S}
            proposals = await _proposals(command, claimed, shop)
            self._claims[of] = {
                **{program: self._claims[of][program] for program in claimed},
                **{proposal.digest: shop.now() for proposal in proposals},
            }
        found = await asyncio.to_thread(_keep, command, proposals, shop)  # dozens of files, each synced
        took_s = shop.now() - began
        return CandidatesSelected(shop.now(), command.job, command.task, command.round, found, took_s)


async def _proposals(command: Select, claimed: set[str], shop: Workshop) -> tuple[Proposal, ...]:
    inputs = await asyncio.to_thread(_inputs, command, claimed, shop)  # dozens of files
    proposals: tuple[Proposal, ...] = await shop.compute.run(select, *inputs, timeout_s=TIMEOUT_S)
    return proposals


def _inputs(command: Select, claimed: set[str], shop: Workshop) -> tuple[object, ...]:
    """Return what `select` is called with."""
    model = shop.records.cost_model(command.hardware)
    parents = _parents(command, shop)
    return (
        shop.blobs.get(command.workload),
        command.target,
        parents,
        None if model is None else cost_model.trees(shop.blobs.get(model)),
        command.count,
        command.seed,
        _seen(command, shop) | claimed,
        _hints(command, shop) if len(parents) < HINTS else (),
    )


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
    programs = {candidate.trace: one.digest for candidate, one in zip(found, proposals, strict=True)}
    shop.catalog.keep_programs(command.workload, programs)
    return found


def _parents(command: Select, shop: Workshop) -> tuple[Tried, ...]:
    return tuple(
        Tried(shop.blobs.get(known.trace), known.latency_s)
        for known in shop.records.top(command.hardware, command.workload, PARENTS)
        if known.latency_s is not None
    )


def _hints(command: Select, shop: Workshop) -> tuple[bytes, ...]:
    """Return traces of the best records of similar workloads."""
    similar = shop.records.similar(command.hardware, command.workload, HINTS)
    return tuple(shop.blobs.get(known.trace) for known in similar)


def _seen(command: Select, shop: Workshop) -> frozenset[str]:
    """Return the programs that need not be proposed: traces may differ where their outcome does not."""
    tried = {known.trace for known in shop.records.tried(command.hardware, command.workload)}
    unbuildable = shop.catalog.unbuildable(command.workload, command.target)
    return shop.catalog.programs(command.workload, tried.union(command.exclude, unbuildable))
