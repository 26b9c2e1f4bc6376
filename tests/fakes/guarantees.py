"""The four guarantees of docs/guarantees.md, checked against what hub and boxes have left behind.

Every check returns the breaches it found, a sentence each; none is what a test wants to see.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from sqlalchemy import select

from fakes.stories import AgentLife, Span, windows
from resonator import bundle
from resonator.bus import codec
from resonator.bus.blobs import digest_of
from resonator.client.client import Client
from resonator.failures import Fault
from resonator.ids import CandidateId, DeviceId, JobId
from resonator.messages import JobState, JobStatus, KernelResult
from resonator_hub.database import Database
from resonator_hub.journal import Journal
from resonator_hub.rules import began
from resonator_hub.scheduler import IllegalTransition, events
from resonator_hub.scheduler.commands import Report
from resonator_hub.tables import RECORDS

Result = tuple[DeviceId, int, CandidateId]
"""A kernel or model as measured in a window."""
_ALL = 1_000_000


@dataclass(frozen=True)
class Books:
    """What a hub has written down: its events in order, its records, and what its scheduler makes of them."""

    journal: Sequence[events.Event]
    records: Mapping[str, tuple[float, ...]]
    """The latencies of each candidate on record."""
    repeated_records: Sequence[str]
    statuses: Mapping[JobId, JobStatus]
    ended_at: Mapping[JobId, float]
    refused: Sequence[str] = ()
    """Events that the scheduler did not accept."""

    def measured(self) -> list[events.Measured]:
        return [event for event in self.journal if isinstance(event, events.Measured)]


@dataclass(frozen=True)
class Evidence:
    """What is known after a run: of the users, of the hub, and of each box."""

    accepted: Sequence[JobId]
    books: Books
    lives: Sequence[AgentLife]
    outboxes: Mapping[DeviceId, Path] = field(default_factory=dict)


def read_books(database: Database) -> Books:
    """Read a hub's database, and fold its journal."""
    journal = Journal(database)
    rules = began(journal)
    assert rules is not None, "the journal is empty"
    scheduler, taken, refused = rules.scheduler(), [], []
    ended_at: dict[JobId, float] = {}
    for event in journal.events():
        taken.append(event)
        try:
            commands = scheduler.step(event)
        except IllegalTransition as error:
            refused.append(str(error))
            continue
        ended_at |= {c.job: event.at for c in commands if isinstance(c, Report) and c.ended}
    statuses = {JobId(status.job): status for status in scheduler.statuses(_ALL)}
    with database.transaction() as connection:
        rows = connection.execute(select(RECORDS.c.candidate, RECORDS.c.latencies)).all()
    records = {row.candidate: tuple(json.loads(row.latencies)) for row in rows}
    twice = [name for name, count in Counter(row.candidate for row in rows).items() if count > 1]
    return Books(taken, records, twice, statuses, ended_at, refused)


def breaches(evidence: Evidence, *, at_rest: bool = True) -> list[str]:
    """Check everything that needs no hub to be running; `at_rest` where nothing is under way any more."""
    return [
        *lost_jobs(evidence, at_rest=at_rest),
        *lost_results(evidence, at_rest=at_rest),
        *miscounted(evidence.books),
        *overlapping(evidence.lives),
    ]


# --- an accepted job is never lost ------------------------------------------------------------------------


def lost_jobs(evidence: Evidence, *, at_rest: bool) -> list[str]:
    """Every job that was accepted is known, submitted once, and goes on or has ended."""
    submitted = Counter(e.job for e in evidence.books.journal if isinstance(e, events.JobSubmitted))
    found = [
        f"job {job} was accepted and is not in the journal"
        for job in evidence.accepted
        if job not in submitted
    ]
    found += [f"job {job} is {count} times in the journal" for job, count in submitted.items() if count > 1]
    found += [
        f"the scheduler does not know job {job}" for job in submitted if job not in evidence.books.statuses
    ]
    if at_rest:
        found += [
            f"job {job} is still {status.state.value}: {status.waiting_for or status.activities}"
            for job, status in evidence.books.statuses.items()
            if not status.state.ended
        ]
    return found


# --- a measured result is counted exactly once ------------------------------------------------------------


def lost_results(evidence: Evidence, *, at_rest: bool) -> list[str]:
    """Every result that a box has kept is in the journal, unless its job has ended or it waits to be sent."""
    known = {(e.device, e.epoch, e.candidate) for e in evidence.books.measured()}
    waiting = {key for device, path in evidence.outboxes.items() for key in pending(device, path)}
    told = {
        (life.device, line.epoch, CandidateId(line.fields["candidate"]))
        for life in evidence.lives
        for line in life.lines
        if line.event in {"measured", "failed"}
    }
    open_ones = [
        result
        for result in sorted((told | waiting) - known)
        if JobId(result[2].partition("/")[0]) not in evidence.books.ended_at
    ]
    return [
        f"{result} was measured and kept by its box, and is not in the journal"
        for result in open_ones
        if at_rest or result not in waiting
    ]


def pending(device: DeviceId, path: Path) -> list[Result]:
    """Return the results in a box's outbox, without disturbing an agent that may be at it."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as outbox:
        payloads = outbox.execute("SELECT payload FROM outbox ORDER BY place").fetchall()
    messages = [codec.decode(payload).message for (payload,) in payloads]
    return [(device, m.epoch, CandidateId(m.candidate)) for m in messages if isinstance(m, KernelResult)]


def miscounted(books: Books) -> list[str]:
    """A candidate has one record, made of its first good result, and counts as one trial of its job."""
    first: dict[CandidateId, events.Measured] = {}
    for event in books.measured():
        good = bool(event.latencies) if event.failure is None else event.failure.kind.fault is Fault.KERNEL
        if good and event.at <= books.ended_at.get(event.job, event.at):
            first.setdefault(event.candidate, event)
    found = [f"{name} has several records" for name in books.repeated_records]
    for name, latencies in books.records.items():
        result = first.get(CandidateId(name))
        if result is None:
            found.append(f"{name} is on record and was never measured")
        elif result.latencies != latencies:
            found.append(f"{name} is on record with {latencies}, its first result was {result.latencies}")
    kernels = {name for name in first if "/model-" not in name}
    found += [f"{name} was measured and is not on record" for name in sorted(kernels - set(books.records))]
    return [*found, *_miscounted_trials(books, kernels)]


def _miscounted_trials(books: Books, kernels: Iterable[CandidateId]) -> list[str]:
    unbuilt = {e.candidate for e in books.journal if isinstance(e, events.BuildFailed)}
    outcomes = Counter(JobId(name.partition("/")[0]) for name in set(kernels) | unbuilt)
    return [
        f"job {job} counts {status.trials} trials, its journal {outcomes[job]}"
        for job, status in books.statuses.items()
        if status.state is JobState.SUCCEEDED and status.trials != outcomes[job]
    ]


# --- two windows never overlap on a box -------------------------------------------------------------------


def overlapping(lives: Sequence[AgentLife]) -> list[str]:
    """A box has one life at a time and one window at a time, of epochs that grow; it measures in no other."""
    of: dict[DeviceId, list[AgentLife]] = defaultdict(list)
    for life in lives:
        if life.lines:
            of[life.device].append(life)
    found: list[str] = []
    for own in of.values():
        spans: list[Span] = []
        for life in sorted(own, key=lambda life: life.number):
            of_life, outside = windows(life)
            spans += of_life
            found += outside
        for one, other in pairwise(spans):
            if other.start < one.end:
                found.append(f"{other} overlaps {one}")
            if other.epoch <= one.epoch:
                found.append(f"{other} comes after {one} and has no higher epoch")
    return found


# --- a bundle that was announced can be fetched -----------------------------------------------------------


async def unfetchable(client: Client, books: Books, folder: Path) -> list[str]:
    """Fetch the bundle of every job that succeeded, check it, and run the last one."""
    found = []
    path = None
    for job, status in books.statuses.items():
        if status.state is not JobState.SUCCEEDED:
            continue
        if status.bundle is None:
            found.append(f"job {job} has succeeded without a bundle")
            continue
        path = folder / f"{job}.tar"
        told = await client.fetch(job, path)
        if told.bundle != status.bundle or digest_of(path.read_bytes()) != status.bundle.digest:
            found.append(f"the bundle of {job} is not the one that was announced")
        manifest, _ = bundle.read(path)
        if manifest.job != job:
            found.append(f"the bundle of {job} is that of {manifest.job}")
    if path is not None:
        run(path)
    return found


def run(path: Path) -> None:
    """Run a bundle on zeros; raises unless it answers with numbers."""
    model = bundle.load(path)
    given = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in model.manifest.inputs}
    for name, values in model(given).items():
        assert np.isfinite(values).all(), name
