"""Records: each candidate once, best known first, and what the cost model has not learned yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from resonator.failures import Failure, FailureKind
from resonator.ids import CandidateId, DeviceId, JobId, TaskId
from resonator.jobspec import Budget, JobBody, Metadata, ModelSpec, TargetSpec, TuningJob
from resonator.tensors import TensorSpec
from resonator_hub.database import Database, sqlite_url
from resonator_hub.jobs.store import Job, Jobs
from resonator_hub.records import Catalog, Lesson, Records
from resonator_hub.scheduler.commands import Record
from resonator_hub.scheduler.events import Measured

HARDWARE, WORKLOAD = "cpu znver4", "a" * 64
JOB, TASK = JobId("j"), TaskId("j/t0")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database.open(sqlite_url(tmp_path / "hub.db"))
    yield database
    database.close()


def record(
    number: int,
    *latencies: float,
    failure: FailureKind | None = None,
    workload: str = WORKLOAD,
    hardware: str = HARDWARE,
    raced: bool = False,
) -> Record:
    result = Measured(
        at=float(number),
        device=DeviceId("s/d"),
        epoch=1,
        job=JOB,
        candidate=CandidateId(f"{TASK}/c{number}"),
        latencies=latencies,
        failure=None if failure is None else Failure(kind=failure),
        raced=raced,
    )
    return Record(result, TASK, workload, "{}", hardware, f"trace{number}", f"features{number}")


def test_a_candidate_is_kept_once(database: Database) -> None:
    records = Records(database)
    assert records.keep(record(0, 3.0, 1.0, 2.0))
    assert not records.keep(record(0, 9.0))
    (known,) = records.tried(HARDWARE, WORKLOAD)
    assert (known.trace, known.features, known.latency_s, known.failure) == ("trace0", "features0", 2.0, None)


def test_the_best_is_found_among_slow_raced_and_failed_ones(database: Database) -> None:
    records = Records(database)
    records.keep(record(0, 3.0))
    records.keep(record(1, 1.0, 1.5, 1.2))
    records.keep(record(2, failure=FailureKind.KERNEL_CRASH))
    records.keep(record(3, 7.0, raced=True))
    assert [known.trace for known in records.top(HARDWARE, WORKLOAD, 10)] == ["trace1", "trace0", "trace3"]
    assert len(records.tried(HARDWARE, WORKLOAD)) == 4
    best = records.best(HARDWARE, WORKLOAD)
    assert best is not None
    assert best.latency_s == 1.2
    assert records.slowest(HARDWARE, WORKLOAD) == 7.0


def test_other_hardware_and_other_workloads_are_apart(database: Database) -> None:
    records = Records(database)
    records.keep(record(0, 1.0, hardware="cpu other"))
    records.keep(record(1, 1.0, workload="b" * 64))
    assert records.best(HARDWARE, WORKLOAD) is None
    assert records.tried(HARDWARE, WORKLOAD) == ()
    assert records.slowest(HARDWARE, WORKLOAD) is None


def test_the_failure_of_a_device_is_no_record(database: Database) -> None:
    records = Records(database)
    assert not records.keep(record(0, failure=FailureKind.DEVICE_DIRTY))
    assert records.tried(HARDWARE, WORKLOAD) == ()


def test_the_cost_model_learns_each_record_once(database: Database) -> None:
    records = Records(database)
    assert records.cost_model(HARDWARE) is None
    records.keep(record(0, 1.0))
    records.keep(record(1, failure=FailureKind.KERNEL_TIMEOUT))
    lessons = records.lessons(HARDWARE)
    assert lessons == (Lesson(1, "features0", WORKLOAD, 1.0), Lesson(2, "features1", WORKLOAD, None))
    records.set_cost_model(HARDWARE, "m1", learned=lessons[-1].record)
    assert records.lessons(HARDWARE) == ()
    records.keep(record(2, 2.0))
    assert [lesson.features for lesson in records.lessons(HARDWARE)] == ["features2"]
    records.set_cost_model(HARDWARE, "m2", learned=3)
    assert records.cost_model(HARDWARE) == "m2"


def test_records_of_similar_workloads_come_nearest_first(database: Database) -> None:
    records, catalog = Records(database), Catalog(database)
    extents = {
        "w": (64, 56, 3),
        "near": (64, 28, 3),
        "far": (512, 7, 3),
        "other": (64, 56, 3),
        "new": (1, 2, 3),
    }
    for workload, loops in extents.items():
        catalog.keep_likeness(workload, "b" if workload == "other" else "a", loops)
    for number, workload in enumerate(["near", "far", "near", "other", "w", "far"]):
        records.keep(record(number, 9.0 - number, workload=workload))
    records.keep(record(6, failure=FailureKind.KERNEL_CRASH, workload="near"))
    similar = records.similar(HARDWARE, "w", 10)
    assert [known.trace for known in similar] == ["trace2", "trace5", "trace0", "trace1"]
    assert records.similar(HARDWARE, "w", 1) == similar[:1]
    assert [known.trace for known in records.similar(HARDWARE, "new", 2)] == ["trace2", "trace4"]
    assert records.similar("other hardware", "w", 10) == ()
    assert records.similar(HARDWARE, "unknown", 10) == ()


def test_a_workload_is_tuned_as_far_as_the_most_thorough_job_went(database: Database) -> None:
    records = Records(database)
    assert records.tuned(HARDWARE, WORKLOAD) == 0
    records.keep(record(0, 1.0))
    records.keep(record(1, failure=FailureKind.KERNEL_TIMEOUT))
    assert records.tuned(HARDWARE, WORKLOAD) == 2
    records.set_tuned(HARDWARE, [WORKLOAD, "b" * 64, WORKLOAD], 32.5)
    records.set_tuned(HARDWARE, [WORKLOAD], 8)
    assert records.tuned(HARDWARE, WORKLOAD) == records.tuned(HARDWARE, "b" * 64) == 32.5
    assert records.tuned("other hardware", WORKLOAD) == 0


def test_a_catalog_tells_what_blobs_are(database: Database) -> None:
    catalog = Catalog(database)
    arguments = (TensorSpec(name="a0", shape=(1, 2), dtype="float32"),)
    catalog.keep_arguments("k", arguments)
    catalog.keep_arguments("k", arguments)
    assert catalog.arguments("k") == arguments
    with pytest.raises(KeyError):
        catalog.arguments("unknown")
    catalog.keep_programs(WORKLOAD, {f"t{n}": f"p{n // 2}" for n in range(1200)})
    catalog.keep_programs("b" * 64, {"t0": "another"})
    assert catalog.programs(WORKLOAD, ["t0", "t1", "t2", "unknown"]) == {"p0", "p1"}
    assert catalog.programs("b" * 64, ["t0", "t1"]) == {"another"}, "a trace may fit several workloads"
    assert len(catalog.programs(WORKLOAD, (f"t{n}" for n in range(1200)))) == 600
    catalog.keep_unbuildable(CandidateId("j/t0/c0"), "t5", WORKLOAD, "x86")
    assert catalog.unbuildable(WORKLOAD, "x86") == {"t5"}
    assert catalog.unbuildable(WORKLOAD, "arm") == frozenset()


def test_a_job_is_found_again_with_its_tasks_and_reference(database: Database) -> None:
    jobs, catalog = Jobs(database), Catalog(database)
    body = JobBody(model=ModelSpec(onnx="m.onnx"), target=TargetSpec(kind="cpu"), budget=Budget(trials=4))
    job = Job(JOB, TuningJob(metadata=Metadata(name="n"), spec=body), "d" * 64, "site", "me")
    with database.transaction() as connection:
        jobs.insert(connection, job)
    catalog.keep_tasks(JOB, {"j/t1": "w1", "j/t0": "w0"})
    jobs.set_reference(JOB, "r" * 64)
    found = Jobs(database).get(JOB)
    assert found.reference == "r" * 64
    assert found.content == job.content
    assert found.order == job.order
    assert found.order.trials == 4
    assert catalog.workloads(JOB) == ("w0", "w1")
    assert jobs.find(JobId("other")) is None
    with pytest.raises(KeyError):
        jobs.get(JobId("other"))
