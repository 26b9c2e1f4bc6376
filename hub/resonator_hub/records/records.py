"""Measured candidates, kept for good and shared by all jobs on one kind of hardware."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from statistics import median

from sqlalchemy import Connection, Select, func, select

from resonator.failures import Failure, Fault
from resonator_hub.database import Database, insert_once, put
from resonator_hub.scheduler.commands import Record
from resonator_hub.tables import COST_MODELS, RECORDS, TUNED, WORKLOADS

_NEIGHBOURS = 3
"""From how many similar workloads schedules are taken over."""


@dataclass(frozen=True)
class Known:
    """One measured candidate: trace and features by digest, and its latency in seconds or its failure."""

    trace: str
    features: str
    latency_s: float | None
    failure: Failure | None


@dataclass(frozen=True)
class Lesson:
    """What the cost model may learn from one record; `latency_s` is None for a kernel that failed."""

    record: int
    features: str
    workload: str
    latency_s: float | None


class Records:
    """Every record by kind of hardware and workload; hardware as the scheduler names it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, record: Record) -> bool:
        """Keep a record once for its candidate; return whether it is new.

        What a loss of power takes with it is made anew from the journal, which has the result.

        The latency is the median of the means. A raced candidate counts as slow as its fastest single run
        was. A device's failures are no records.
        """
        failure = record.result.failure
        if failure is not None and failure.kind.fault is not Fault.KERNEL:
            return False
        row = _row(record)
        return self._database.write(
            lambda connection: insert_once(connection, RECORDS, ("candidate",), row), lasting=False
        )

    def tried(self, hardware: str, workload: str) -> tuple[Known, ...]:
        """Return everything measured for a workload on this hardware, in order of measurement."""
        return self._known(_of(hardware, workload).order_by(RECORDS.c.record))

    def top(self, hardware: str, workload: str, count: int) -> tuple[Known, ...]:
        """Return the `count` fastest measured candidates, fastest first."""
        query = _of(hardware, workload).where(RECORDS.c.latency_s.is_not(None))
        return self._known(query.order_by(RECORDS.c.latency_s, RECORDS.c.record).limit(count))

    def best(self, hardware: str, workload: str) -> Known | None:
        """Return the fastest candidate on record, if there is one."""
        return next(iter(self.top(hardware, workload, 1)), None)

    def similar(self, hardware: str, workload: str, count: int) -> tuple[Known, ...]:
        """Return the `count` most useful records of workloads that differ from this one in extents alone.

        The best of the nearest workloads come first. Workloads are near where the lengths of their loops
        have similar logarithms.
        """
        of = dict(self._alike(hardware, workload))
        own = of.pop(workload, None)
        if own is None:
            return ()
        nearest = sorted(of, key=lambda other: (_distance(own, of[other]), other))[:_NEIGHBOURS]
        ranked = zip_longest(*(self.top(hardware, other, count) for other in nearest))
        return tuple(known for known in chain.from_iterable(ranked) if known is not None)[:count]

    def tuned(self, hardware: str, workload: str) -> float:
        """Return with how many trials a task the search for this workload was carried to its end.

        That is what the most thorough job granted each of its tasks, or what was measured if that is more.
        """
        granted = select(TUNED.c.trials).where(TUNED.c.hardware == hardware, TUNED.c.workload == workload)
        here = (RECORDS.c.hardware == hardware, RECORDS.c.workload == workload)
        with self._database.transaction() as connection:
            measured = connection.execute(select(func.count()).select_from(RECORDS).where(*here)).scalar_one()
            return max(measured, connection.execute(granted).scalar() or 0.0)

    def set_tuned(self, hardware: str, workloads: Iterable[str], trials: float) -> None:
        """Note that the search for these workloads came to its end, with so many trials granted to each."""
        wanted = sorted(set(workloads))

        def work(connection: Connection) -> None:
            for workload in wanted:
                of = (TUNED.c.hardware == hardware, TUNED.c.workload == workload)
                known = connection.execute(select(TUNED.c.trials).where(*of)).scalar()
                row = {"hardware": hardware, "workload": workload, "trials": max(trials, known or 0.0)}
                put(connection, TUNED, ("hardware", "workload"), row)

        self._database.write(work)

    def slowest(self, hardware: str, workload: str) -> float | None:
        """Return the longest latency measured for a workload on this hardware, in seconds."""
        query = select(func.max(RECORDS.c.latency_s))
        of_these = query.where(RECORDS.c.hardware == hardware, RECORDS.c.workload == workload)
        with self._database.transaction() as connection:
            return connection.execute(of_these).scalar()

    def lessons(self, hardware: str) -> tuple[Lesson, ...]:
        """Return what the cost model of this hardware has not learned yet, over all workloads, in order."""
        learned = select(COST_MODELS.c.learned).where(COST_MODELS.c.hardware == hardware)
        columns = (RECORDS.c.record, RECORDS.c.features, RECORDS.c.workload, RECORDS.c.latency_s)
        with self._database.transaction() as connection:
            after = connection.execute(learned).scalar() or 0
            query = select(*columns).where(RECORDS.c.hardware == hardware, RECORDS.c.record > after)
            rows = connection.execute(query.order_by(RECORDS.c.record)).all()
        return tuple(Lesson(row.record, row.features, row.workload, row.latency_s) for row in rows)

    def cost_model(self, hardware: str) -> str | None:
        """Return the digest of the current cost model of this hardware, if there is one."""
        query = select(COST_MODELS.c.digest).where(COST_MODELS.c.hardware == hardware)
        with self._database.transaction() as connection:
            return connection.execute(query).scalar()

    def set_cost_model(self, hardware: str, digest: str, learned: int) -> None:
        """Make a blob the current cost model of this hardware; it has learned up to this record."""
        row = {"hardware": hardware, "digest": digest, "learned": learned}
        self._database.write(lambda connection: put(connection, COST_MODELS, ("hardware",), row))

    def _alike(self, hardware: str, workload: str) -> Iterable[tuple[str, Sequence[int]]]:
        """Return extents of this workload and of those like it that have been measured on this hardware."""
        structure = select(WORKLOADS.c.structure).where(WORKLOADS.c.workload == workload).scalar_subquery()
        here = (RECORDS.c.hardware == hardware, RECORDS.c.workload == WORKLOADS.c.workload)
        measured = select(RECORDS.c.record).where(*here).exists()
        query = select(WORKLOADS.c.workload, WORKLOADS.c.extents).where(
            WORKLOADS.c.structure == structure, (WORKLOADS.c.workload == workload) | measured
        )
        with self._database.transaction() as connection:
            return [(row.workload, json.loads(row.extents)) for row in connection.execute(query)]

    def _known(self, query: Select[str, str, float | None, str | None]) -> tuple[Known, ...]:
        with self._database.transaction() as connection:
            return tuple(_rows(connection, query))


def _distance(one: Sequence[int], other: Sequence[int]) -> float:
    return sum(abs(math.log(max(1, a) / max(1, b))) for a, b in zip(one, other, strict=True))


def _of(hardware: str, workload: str) -> Select[str, str, float | None, str | None]:
    columns = (RECORDS.c.trace, RECORDS.c.features, RECORDS.c.latency_s, RECORDS.c.failure)
    return select(*columns).where(RECORDS.c.hardware == hardware, RECORDS.c.workload == workload)


def _rows(connection: Connection, query: Select[str, str, float | None, str | None]) -> list[Known]:
    return [
        Known(row[0], row[1], row[2], None if row[3] is None else Failure.model_validate_json(row[3]))
        for row in connection.execute(query)
    ]


def _row(record: Record) -> dict[str, object]:
    result = record.result
    return {
        "candidate": result.candidate,
        "job": result.job,
        "task": record.task,
        "device": result.device,
        "hardware": record.hardware,
        "workload": record.workload,
        "target": record.target,
        "trace": record.trace,
        "features": record.features,
        "latency_s": median(result.latencies) if result.latencies else None,
        "latencies": json.dumps(result.latencies),
        "raced": result.raced,
        "failure": None if result.failure is None else result.failure.model_dump_json(),
        "conditions": result.conditions.model_dump_json(),
        "device_time_s": result.device_time_s,
        "at": result.at,
    }
