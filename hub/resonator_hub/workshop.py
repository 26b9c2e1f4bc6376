"""What every stage is performed with: compute, blobs, and what is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from resonator.bus.blobs import Blobs
from resonator_hub.jobs.store import Jobs
from resonator_hub.records import Catalog, Records

P = ParamSpec("P")
T = TypeVar("T")


class Computes(Protocol):
    """Runs plain functions of plain data somewhere else; see `resonator_hub.compute`."""

    async def run(self, function: Callable[..., T], *args: object, timeout_s: float) -> T:
        """Return what the function returns or raise what it raises; ComputeFailed when it does not end."""


@dataclass(frozen=True)
class Workshop:
    """The things a stage needs; `now` is the hub's time."""

    compute: Computes
    blobs: Blobs
    catalog: Catalog
    records: Records
    jobs: Jobs
    now: Callable[[], float]
