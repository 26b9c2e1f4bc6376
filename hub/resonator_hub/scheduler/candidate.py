"""A candidate on its way from proposal to outcome; a whole compiled model counts as one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from resonator.failures import Failure
from resonator.ids import CandidateId, DeviceId
from resonator_hub.scheduler.transitions import CandidateState

if TYPE_CHECKING:
    from resonator_hub.scheduler.batch import Batch


@dataclass(slots=True, eq=False)
class Candidate:
    """One kernel to be: `kernel` is its blob once built, `pushes` where it was sent and has not failed."""

    id: CandidateId
    batch: Batch
    trace: str = ""
    features: str = ""
    state: CandidateState = CandidateState.PROPOSED
    kernel: str = ""
    size: int = 0
    attempts: int = 0
    pushes: list[tuple[DeviceId, int]] = field(default_factory=list)
    failure: Failure | None = None
