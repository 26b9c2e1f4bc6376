"""The jobs that users submitted, as they wrote them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from resonator.ids import JobId
from resonator.jobspec import TuningJob
from resonator_hub.database import Database
from resonator_hub.scheduler.events import JobOrder
from resonator_hub.tables import JOBS


@dataclass(frozen=True)
class Job:
    """One submission: the model (or, `bench`, the bundle to be measured) by digest, and who sent it.

    `reference` names the model's inputs and expected outputs, once they were computed.
    """

    job: JobId
    spec: TuningJob
    model: str
    site: str
    client: str
    bench: bool = False
    reference: str | None = None

    @property
    def content(self) -> str:
        """What makes a repeated submission the same: a digest over description and model."""
        text = f"{self.bench}\n{self.model}\n{self.spec.model_dump_json()}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def order(self) -> JobOrder:
        """What the scheduler must know of it."""
        body = self.spec.spec
        return JobOrder(
            name=self.spec.metadata.name,
            target=body.target,
            trials=0 if self.bench else body.budget.trials,
            measure=body.measure,
            time_s=body.budget.time,
            objective_s=body.objective.latency_ms / 1e3 if body.objective else None,
            priority=body.priority,
            seed=body.seed,
            bundle=self.model if self.bench else None,
        )


class Jobs:
    """Every job by its id; they change only by gaining a reference, so they are kept in memory, too."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._jobs: dict[JobId, Job] = {}

    def find(self, job: JobId) -> Job | None:
        """Return a job, or None when there is none of that id."""
        if job not in self._jobs:
            with self._database.transaction() as connection:
                row = connection.execute(select(JOBS).where(JOBS.c.job == job)).one_or_none()
            if row is None:
                return None
            spec = TuningJob.model_validate_json(row.spec)
            self._jobs[job] = Job(job, spec, row.model, row.site, row.client, row.bench, row.reference)
        return self._jobs[job]

    def get(self, job: JobId) -> Job:
        """Return a job; raises KeyError when there is none of that id."""
        found = self.find(job)
        if found is None:
            raise KeyError(job)
        return found

    def with_model(self, digest: str) -> tuple[JobId, ...]:
        """Return the jobs whose model (or bundle to be measured) has this digest."""
        with self._database.transaction() as connection:
            found = connection.execute(select(JOBS.c.job).where(JOBS.c.model == digest).order_by(JOBS.c.job))
            return tuple(JobId(job) for job in found.scalars())

    @staticmethod
    def insert(connection: Connection, job: Job) -> None:
        """Write a new job into a transaction, beside the event that says so."""
        row = {
            "job": job.job,
            "spec": job.spec.model_dump_json(by_alias=True),
            "model": job.model,
            "site": job.site,
            "client": job.client,
            "bench": job.bench,
        }
        connection.execute(insert(JOBS).values(row))

    def set_reference(self, job: JobId, reference: str) -> None:
        """Note what the model's outputs must be."""
        change = update(JOBS).where(JOBS.c.job == job).values(reference=reference)
        self._database.write(lambda connection: connection.execute(change))
        self._jobs.pop(job, None)
