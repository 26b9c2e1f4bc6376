"""The orders in which jobs get compute slots and devices; nothing else differs between policies."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import Protocol

from resonator_hub.scheduler.ranked import Rank

_MARGIN = 1.5
"""A round is selected ahead of time by this much more than the estimates say it needs,"""

_ON_THE_WAY_S = 1.0
"""and by this long, for messages on their way and steps that wait for a slot."""


class Contender(Protocol):
    """What a policy sees of a job; shares are seconds used of a resource, divided by the job's weight."""

    number: int
    since: int
    compute_share: float
    device_share: float


@dataclass(frozen=True, slots=True)
class Ahead:
    """What a job has under way: `rounds`, of which the devices it can have will work for `work_s` seconds.

    `learning` more are measured, and being taught to the cost model. `lead_s` is how long a further round
    takes until its kernels are ready; `most` bounds the rounds.
    """

    rounds: int
    learning: int
    models: int
    work_s: float
    lead_s: float
    most: int


class Policy:
    """The base: first come, first served; lower ranks go first.

    `one_job`: a job begins when the one before has ended. `streams`: a kernel goes to its device as soon as
    it is built, not when the whole round is. `urgent`: a time budget that runs out raises a job. `levels`:
    whoever did not use its share for long does not keep the claim.
    """

    name = ""
    one_job = False
    streams = True
    urgent = False
    levels = False

    def group(self, pool: int) -> int:
        """Return the group of jobs that compete for compute slots as one, by the pool they work for."""
        return 0

    def group_rank(self, queue_s: float) -> Rank:
        """Rank a group by the seconds of ready work each of its devices has."""
        return (0,)

    def compute_rank(self, job: Contender, *, feeds: bool) -> Rank:
        """Rank a job within its group; `feeds` if its step leads to a ready kernel without a selection."""
        return (job.since,)

    def device_rank(self, job: Contender, *, since: int, model: bool) -> Rank:
        """Rank a batch that has been ready `since` among those that want a device."""
        return (since,)

    def may_select(self, ahead: Ahead) -> bool:
        """Return whether a job may select a round of a task that has none under way."""
        return ahead.rounds + ahead.learning == 0

    def may_speculate(self, ahead: Ahead) -> bool:
        """Return whether it may select a task's next round before the last results are in."""
        return False


class Sequential(Policy):
    """One job after the other, each stage of a round strictly after the previous: what TVM does."""

    name = "sequential"
    one_job = True
    streams = False

    def may_select(self, ahead: Ahead) -> bool:
        """Wait until nothing at all is under way."""
        return ahead.rounds + ahead.learning + ahead.models == 0


class Greedy(Policy):
    """First ready, first served: the stages of different jobs overlap."""

    name = "greedy"


class Fair(Policy):
    """The job that has used least of the resource, by weight, goes first."""

    name = "fair"

    def compute_rank(self, job: Contender, *, feeds: bool) -> Rank:
        """Least compute seconds first."""
        return (job.compute_share, job.number)

    def device_rank(self, job: Contender, *, since: int, model: bool) -> Rank:
        """Least device seconds first."""
        return (job.device_share, since)


class LoadAware(Policy):
    """Keep the scarcest resource fed: work for the hungriest devices first, and a round ahead of need.

    Devices are shared in device-seconds by weight. Compute goes to the pool whose devices run dry first (in
    powers of two, so that jobs of much the same need share evenly), there to kernels before selections.
    """

    name = "load_aware"
    urgent = True
    levels = True

    def group(self, pool: int) -> int:
        """Jobs for the same devices compete as one."""
        return pool

    def group_rank(self, queue_s: float) -> Rank:
        """Shortest queue first."""
        return (int(log2(1.0 + queue_s)),)

    def compute_rank(self, job: Contender, *, feeds: bool) -> Rank:
        """Kernels before selections, then least compute seconds."""
        return (not feeds, job.compute_share, job.number)

    def device_rank(self, job: Contender, *, since: int, model: bool) -> Rank:
        """Least device seconds first; a job's whole model before its kernels."""
        return (job.device_share, not model, since)

    def may_select(self, ahead: Ahead) -> bool:
        """One job's tasks overlap as freely as two jobs' do."""
        return ahead.rounds < ahead.most

    def may_speculate(self, ahead: Ahead) -> bool:
        """Only when the devices would run dry before a new round could be ready."""
        return ahead.rounds < ahead.most and ahead.work_s < _MARGIN * ahead.lead_s + _ON_THE_WAY_S


POLICIES: dict[str, Policy] = {
    policy.name: policy for policy in (Sequential(), Greedy(), Fair(), LoadAware())
}
