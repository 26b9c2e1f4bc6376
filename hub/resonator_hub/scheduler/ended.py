"""Jobs that have ended: a hub sees ever more of them and is seldom asked, so they are kept small."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from resonator.ids import JobId
from resonator.messages import JobStatus


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job's last status, packed, and the bundle that it delivered (by digest), if it did."""

    job: JobId
    bundle: str | None
    status: bytes


class Ended:
    """The last status of each job that has ended, packed into a few hundred bytes."""

    __slots__ = ("_packed",)

    def __init__(self) -> None:
        self._packed: dict[JobId, bytes] = {}

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, job: object) -> bool:
        return job in self._packed

    def __getitem__(self, job: JobId) -> JobStatus:
        return JobStatus.model_validate_json(zlib.decompress(self._packed[job]))

    def __reversed__(self) -> Iterator[JobId]:
        """Go through the jobs, the one that ended last first."""
        return reversed(self._packed)

    def keep(self, status: JobStatus) -> None:
        """Keep the status of a job that has just ended."""
        self._packed[JobId(status.job)] = zlib.compress(status.model_dump_json().encode())

    def after(self, number: int) -> Iterator[EndedJob]:
        """Go through the jobs but the first `number`, the one that ended first of them first."""
        for job in islice(self._packed, number, None):
            bundle = self[job].bundle
            yield EndedJob(job, bundle.digest if bundle else None, self._packed[job])

    def restore(self, jobs: Iterable[EndedJob]) -> None:
        """Keep these jobs and no others."""
        self._packed = {one.job: one.status for one in jobs}
