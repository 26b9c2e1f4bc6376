"""A device as the hub sees it, and the window it is granted in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from resonator.ids import CandidateId, DeviceId
from resonator_hub.scheduler.candidate import Candidate
from resonator_hub.scheduler.events import DeviceDrained, Offer
from resonator_hub.scheduler.ranked import Ranked
from resonator_hub.scheduler.transitions import DevicePhase

if TYPE_CHECKING:
    from resonator_hub.scheduler.batch import Batch
    from resonator_hub.scheduler.fleet import Pool
    from resonator_hub.scheduler.job import Job


@dataclass(slots=True, eq=False)
class Window:
    """A lease of a device for one job, for `model` alone if that is set.

    `outstanding` are the kernels sent and not answered, oldest first; `idle_since` is when the last one was.
    """

    epoch: int
    job: Job
    model: Batch | None
    duration_s: float
    began_at: float
    opened_at: float | None = None
    charged_at: float = 0.0
    idle_since: float = 0.0
    measured: int = 0
    outstanding: dict[CandidateId, Candidate] = field(default_factory=dict)

    def serves(self, batch: Batch) -> bool:
        """Return whether kernels of this batch belong in this window."""
        return batch is self.model if self.model else batch.job is self.job and not batch.model


@dataclass(slots=True, eq=False)
class Device:
    """`epoch` is the highest ever granted or heard of; `batches` are bound to it, of which `wants` wait.

    `clock` is the highest device share of a job served here: nobody's claim lies far behind it. `hidden` is a
    device whose link is cut: in its window, if it has one, it goes on until the lease is over.
    """

    id: DeviceId
    phase: DevicePhase = DevicePhase.UNKNOWN
    session: int = -1
    epoch: int = 0
    cpu_model: str = ""
    offers: tuple[Offer, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    available: bool = True
    hidden: bool = False
    window: Window | None = None
    pools: list[Pool] = field(default_factory=list)
    batches: dict[str, Batch] = field(default_factory=dict)
    wants: Ranked[Batch] = field(default_factory=Ranked)
    clock: float = 0.0
    drained: DeviceDrained | None = None
    strikes: int = 0
    rests_until: float | None = None
    reason: str = ""
    measured: int = 0
    busy_s: float = 0.0

    @property
    def present(self) -> bool:
        """Whether the device is in sight."""
        return not self.hidden and self.phase not in {DevicePhase.OFFLINE, DevicePhase.UNKNOWN}

    @property
    def trusted(self) -> bool:
        """Whether the device would be given work: in sight, willing, not drained and not at rest."""
        return self.present and self.available and self.drained is None and self.rests_until is None

    @property
    def usable(self) -> bool:
        """Whether the device can be granted now."""
        return self.phase is DevicePhase.IDLE and self.trusted

    def health(self, strikes: int) -> Literal["good", "unknown", "bad", "maintenance"]:
        """Return the public health; `strikes` failures of its own in a row make it bad."""
        if self.drained is not None:
            return "maintenance"
        if self.strikes >= strikes:
            return "bad"
        if not self.available:
            return "maintenance"
        return "good" if self.measured and not self.strikes else "unknown"
