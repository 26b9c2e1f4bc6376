"""What the blobs are: the tasks of a job, the programs of their traces, the arguments of kernels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from importlib.metadata import version

from pydantic import TypeAdapter
from sqlalchemy import Connection, Table, bindparam, select

from resonator.ids import CandidateId, JobId
from resonator.tensors import TensorSpec
from resonator_hub.database import Database, insert_once
from resonator_hub.tables import BUILDS, KERNELS, PROGRAMS, TASKS, UNBUILDABLE, WORKLOADS

_ARGUMENTS = TypeAdapter(tuple[TensorSpec, ...])
_REMEMBERED = 4096
"""Of how many kernels the arguments need not be looked up again: each is pushed, and judged, soon."""
_PROGRAM = select(PROGRAMS.c.program).where(
    PROGRAMS.c.workload == bindparam("workload"), PROGRAMS.c.trace == bindparam("trace")
)
_KERNEL = select(BUILDS.c.kernel).where(BUILDS.c.build == bindparam("build"))


class Catalog:
    """Facts about blobs, each written once: a blob's digest never comes to mean something else.

    They are on disk as soon as an event is that speaks of them.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.arguments = lru_cache(_REMEMBERED)(self._arguments)
        """Return what a kernel takes; raises KeyError for one that was never built here."""

    def keep_tasks(self, job: JobId, workloads: Mapping[str, str]) -> None:
        """Note the workload of each of a job's tasks."""
        rows = [{"task": task, "job": job, "workload": workload} for task, workload in workloads.items()]
        self._keep(TASKS, ("task",), rows)

    def workloads(self, job: JobId) -> tuple[str, ...]:
        """Return the digests of a job's workloads, sorted."""
        query = select(TASKS.c.workload).where(TASKS.c.job == job).order_by(TASKS.c.workload)
        with self._database.transaction() as connection:
            return tuple(connection.execute(query).scalars())

    def keep_likeness(self, workload: str, structure: str, extents: tuple[int, ...]) -> None:
        """Note what a workload has in common with others, and in what it differs from those."""
        row = {"workload": workload, "structure": structure, "extents": json.dumps(extents)}
        self._keep(WORKLOADS, ("workload",), [row])

    def keep_programs(self, workload: str, programs: Mapping[str, str]) -> None:
        """Note which program each trace makes of a workload."""
        rows = [{"workload": workload, "trace": trace, "program": of} for trace, of in programs.items()]
        self._keep(PROGRAMS, ("workload", "trace"), rows)

    def programs(self, workload: str, traces: Iterable[str]) -> frozenset[str]:
        """Return the programs that these traces make of a workload."""
        wanted = sorted(set(traces))
        found: set[str] = set()
        with self._database.transaction() as connection:
            for start in range(0, len(wanted), 500):  # databases bound the variables of one statement
                chunk = wanted[start : start + 500]
                query = select(PROGRAMS.c.program).where(PROGRAMS.c.workload == workload)
                found.update(connection.execute(query.where(PROGRAMS.c.trace.in_(chunk))).scalars())
        return frozenset(found)

    def keep_kernel(
        self, workload: str, trace: str, target: str, kernel: str, arguments: tuple[TensorSpec, ...]
    ) -> None:
        """Note the kernel that a scheduled workload has become on a target, and what it takes."""
        row = {"kernel": kernel, "arguments": _ARGUMENTS.dump_json(arguments).decode()}

        def work(connection: Connection) -> None:
            insert_once(connection, KERNELS, ("kernel",), row)
            build = _build(connection, workload, trace, target)
            if build is not None:
                insert_once(connection, BUILDS, ("build",), {"build": build, "kernel": kernel})

        self._database.write(work, lasting=False)

    def kernel(self, workload: str, trace: str, target: str) -> str | None:
        """Return the kernel of a scheduled workload, if this version has built it for this target."""
        with self._database.transaction() as connection:
            build = _build(connection, workload, trace, target)
            return connection.execute(_KERNEL, {"build": build}).scalar() if build else None

    def keep_unbuildable(self, candidate: CandidateId, trace: str, workload: str, target: str) -> None:
        """Note a trace that does not lead to a kernel of a workload on a target."""
        row = {"candidate": candidate, "trace": trace, "workload": workload, "target": target}
        self._keep(UNBUILDABLE, ("candidate",), [row])

    def unbuildable(self, workload: str, target: str) -> frozenset[str]:
        """Return the traces that do not lead to a kernel of this workload on this target."""
        where = (UNBUILDABLE.c.workload == workload, UNBUILDABLE.c.target == target)
        with self._database.transaction() as connection:
            return frozenset(connection.execute(select(UNBUILDABLE.c.trace).where(*where)).scalars())

    def _arguments(self, kernel: str) -> tuple[TensorSpec, ...]:
        query = select(KERNELS.c.arguments).where(KERNELS.c.kernel == kernel)
        with self._database.transaction() as connection:
            text = connection.execute(query).scalar()
        if text is None:
            raise KeyError(kernel)
        return _ARGUMENTS.validate_json(text)

    def _keep(self, table: Table, key: tuple[str, ...], rows: Sequence[dict[str, str]]) -> None:
        """Insert the rows whose key is not there yet."""

        def work(connection: Connection) -> None:
            for row in rows:
                insert_once(connection, table, key, row)

        self._database.write(work, lasting=False)


def _build(connection: Connection, workload: str, trace: str, target: str) -> str | None:
    """Return what names a build: the program, the target and what compiles; None for an unknown program."""
    program = connection.execute(_PROGRAM, {"workload": workload, "trace": trace}).scalar()
    if program is None:
        return None
    parts = (program, target, _version("apache-tvm"), _version("resonator"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@cache
def _version(package: str) -> str:
    """Return an installed package's version; finding it out means to parse all of its metadata."""
    return version(package)
