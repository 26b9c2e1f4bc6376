"""Every table the hub keeps, in SQLAlchemy's terms alone. Blobs are files, named here by their digests."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

METADATA = MetaData()
_NAME = String(200)
_DIGEST = String(64)
_COUNT = BigInteger().with_variant(Integer, "sqlite")
"""What grows without end; SQLite counts rows by itself in an Integer alone, which is as large there."""

EVENTS = Table(
    "events",
    METADATA,
    Column("seq", _COUNT, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("name", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Index("events_of_a_kind", "name", "seq"),
)
"""The journal: what happened to the scheduler, in order."""

SNAPSHOTS = Table(
    "snapshots",
    METADATA,
    Column("seq", _COUNT, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("ended", Integer, nullable=False),
    Column("first", Boolean, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
"""What the hub knew after an event, and how many jobs had ended; before the `first` events are forgotten."""

ENDED_JOBS = Table(
    "ended_jobs",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("job", _NAME, nullable=False),
    Column("bundle", _DIGEST, nullable=True),
    Column("status", LargeBinary, nullable=False),
)
"""The last status of each job that has ended, in the order of their ends, from 1."""

JOBS = Table(
    "jobs",
    METADATA,
    Column("job", _NAME, primary_key=True),
    Column("spec", Text, nullable=False),
    Column("model", _DIGEST, nullable=False),
    Column("site", _NAME, nullable=False),
    Column("client", _NAME, nullable=False),
    Column("bench", Boolean, nullable=False),
    Column("reference", _DIGEST, nullable=True),
    Index("jobs_of_a_model", "model"),
)
"""What users asked for."""

TASKS = Table(
    "tasks",
    METADATA,
    Column("task", _NAME, primary_key=True),
    Column("job", _NAME, ForeignKey("jobs.job"), nullable=False, index=True),
    Column("workload", _DIGEST, nullable=False),
)

PROGRAMS = Table(
    "programs",
    METADATA,
    Column("workload", _DIGEST, primary_key=True),
    Column("trace", _DIGEST, primary_key=True),
    Column("program", _DIGEST, nullable=False),
)
"""Which program a trace makes of a workload: one trace may fit many, and different ones may make the same."""

UNBUILDABLE = Table(
    "unbuildable",
    METADATA,
    Column("candidate", _NAME, primary_key=True),
    Column("trace", _DIGEST, nullable=False),
    Column("workload", _DIGEST, nullable=False),
    Column("target", Text, nullable=False),
    Index("unbuildable_of_a_workload", "workload"),
)
"""Candidates that could not be built: they have no record, and need not be proposed again."""

KERNELS = Table(
    "kernels",
    METADATA,
    Column("kernel", _DIGEST, primary_key=True),
    Column("arguments", Text, nullable=False),
)
"""What a kernel takes: a JSON list of tensors."""

BUILDS = Table(
    "builds",
    METADATA,
    Column("build", _DIGEST, primary_key=True),
    Column("kernel", _DIGEST, nullable=False),
)
"""Which kernel was built of what: `build` digests the program, the target and the compiler's version."""

WORKLOADS = Table(
    "workloads",
    METADATA,
    Column("workload", _DIGEST, primary_key=True),
    Column("structure", _DIGEST, nullable=False),
    Column("extents", Text, nullable=False),
    Index("workloads_of_a_structure", "structure"),
)
"""What makes workloads similar: one structure, and a JSON list of how long their loops are."""

TUNED = Table(
    "tuned",
    METADATA,
    Column("hardware", Text, primary_key=True),
    Column("workload", _DIGEST, primary_key=True),
    Column("trials", Float, nullable=False),
)
"""The most trials a task that a job was granted for a workload, and that brought its search to an end."""

RECORDS = Table(
    "records",
    METADATA,
    Column("record", _COUNT, primary_key=True, autoincrement=True),
    Column("candidate", _NAME, nullable=False),
    Column("job", _NAME, nullable=False),
    Column("task", _NAME, nullable=False),
    Column("device", _NAME, nullable=False),
    Column("hardware", Text, nullable=False),
    Column("workload", _DIGEST, nullable=False),
    Column("target", Text, nullable=False),
    Column("trace", _DIGEST, nullable=False),
    Column("features", _DIGEST, nullable=False),
    Column("latency_s", Float, nullable=True),
    Column("latencies", Text, nullable=False),
    Column("raced", Boolean, nullable=False),
    Column("failure", Text, nullable=True),
    Column("conditions", Text, nullable=False),
    Column("device_time_s", Float, nullable=False),
    Column("at", Float, nullable=False),
    UniqueConstraint("candidate"),
    Index("records_of_a_workload", "hardware", "workload", "latency_s"),
)
"""What was measured, where, under which conditions."""

COST_MODELS = Table(
    "cost_models",
    METADATA,
    Column("hardware", Text, primary_key=True),
    Column("digest", _DIGEST, nullable=False),
    Column("learned", _COUNT, nullable=False),
)
"""The current cost model of each kind of hardware, and up to which record it has learned."""

DEVICES = Table(
    "devices",
    METADATA,
    Column("device", _NAME, primary_key=True),
    Column("identity", Text, nullable=False),
)
"""What each device said it is, when it last said it."""

LEADERSHIP = Table(
    "leadership",
    METADATA,
    Column("one", Integer, primary_key=True),
    Column("origin", _NAME, nullable=False),
    Column("holder", _NAME, nullable=False),
    Column("term", Integer, nullable=False),
    Column("beat", Integer, nullable=False),
    Column("written", _NAME, nullable=False),
)
"""Which hub writes here, in one row: see `resonator_hub.leadership`. `origin` tells databases apart."""
