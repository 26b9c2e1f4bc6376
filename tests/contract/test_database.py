"""What the hub keeps, over every database it may keep it in: events, jobs, records, facts, devices."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import alembic.command
import alembic.config
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, insert, select, text

from resonator.failures import Failure, FailureKind
from resonator.ids import CandidateId, DeviceId, JobId, TaskId
from resonator.jobspec import Budget, JobBody, Metadata, ModelSpec, TargetSpec, TuningJob
from resonator.messages import Identity, Offer
from resonator.tensors import TensorSpec
from resonator_hub import database_url
from resonator_hub.database import Database, DatabaseUnusable, put
from resonator_hub.fleet import Registry
from resonator_hub.jobs.store import Job, Jobs
from resonator_hub.journal import Journal
from resonator_hub.records import Catalog, Lesson, Records
from resonator_hub.scheduler import events
from resonator_hub.scheduler.commands import Record
from resonator_hub.scheduler.events import Measured
from resonator_hub.tables import DEVICES, EVENTS, METADATA

HARDWARE, WORKLOAD = "cpu znver4", "a" * 64
JOB, TASK = JobId("j"), TaskId("j/t0")


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


def test_a_write_that_need_not_last_leaves_the_wait_for_the_disk_to_the_next(database: Database) -> None:
    def level(connection: Connection) -> object:
        put(connection, DEVICES, ("device",), {"device": "lab/box", "identity": "{}"})
        return connection.exec_driver_sql("PRAGMA synchronous").scalar() if database.own else "always"

    assert database.write(level, lasting=False) == (1 if database.own else "always")
    with database.transaction() as connection:
        assert connection.execute(select(DEVICES.c.device)).scalars().all() == ["lab/box"]
    with pytest.raises(ZeroDivisionError):
        database.write(lambda _: 1 // 0, lasting=False)
    assert database.write(level) == (2 if database.own else "always")


def test_a_catalog_tells_what_blobs_are(database: Database) -> None:
    catalog = Catalog(database)
    arguments = (TensorSpec(name="a0", shape=(1, 2), dtype="float32"),)
    catalog.keep_programs(WORKLOAD, {f"t{n}": f"p{n // 2}" for n in range(1200)})
    for _ in range(2):
        catalog.keep_kernel(WORKLOAD, "t0", "llvm", "k", arguments)
    assert catalog.arguments("k") == arguments
    assert catalog.kernel(WORKLOAD, "t1", "llvm") == "k"
    assert catalog.kernel(WORKLOAD, "t2", "llvm") is None
    with pytest.raises(KeyError):
        catalog.arguments("unknown")
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
    database.write(lambda connection: jobs.insert(connection, job))
    assert jobs.with_model("d" * 64) == (JOB,)
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


def test_events_come_back_as_they_were_and_in_order(database: Database) -> None:
    journal = Journal(database)
    kept: list[events.Event] = [
        events.HubStarted(0.1 + 0.2, 2),
        events.DeviceSeen(3.0, DeviceId("s/d"), 1, 0, "µ\x1b\n", (events.Offer("cpu", "{}"),), (("k", "v"),)),
        record(1, 1e-9, 0.1).result,
        *(events.Tick(1.7e9 + number / 7) for number in range(1200)),
    ]
    last = journal.append_all([(event, None) for event in kept])
    assert list(journal.events()) == kept
    assert (journal.length(), journal.last_at()) == (last, kept[-1].at)
    assert list(journal.of(Measured)) == [kept[2]]
    assert journal.append(events.Tick(2e9)) > last


def test_events_and_what_belongs_to_them_are_kept_together_or_not_at_all(database: Database) -> None:
    journal, facts = Journal(database), text("INSERT INTO kernels (kernel, arguments) VALUES (:kernel, '[]')")

    def also(kernel: str, *, fails: bool = False) -> None:
        def write(connection: Connection) -> None:
            connection.execute(facts, {"kernel": kernel})
            if fails:
                raise RuntimeError("no")

        journal.append_all([(events.Tick(1.0), None), (events.Tick(2.0), write)])

    also("there")
    with pytest.raises(RuntimeError):
        also("not there", fails=True)
    assert list(journal.events()) == [events.Tick(1.0), events.Tick(2.0)]
    with database.transaction() as connection:
        assert connection.execute(text("SELECT kernel FROM kernels")).scalars().all() == ["there"]


def test_devices_are_known_by_what_they_said_last(database: Database) -> None:
    device = DeviceId("s/d")
    for memory in (2, 4):
        identity = Identity(
            architecture="x86_64",
            cpu_model="c",
            cores=1,
            cores_used=(0,),
            memory=memory,
            tvm_version="1",
            agent_version="1",
            offers=(Offer(kind="cpu", target="{}"),),
        )
        Registry(database).keep(device, identity)
    known = Registry(database).identity(device)
    assert known is not None
    assert known.memory == 4


def test_the_migrations_lead_to_the_tables_of_this_version(database: Database) -> None:
    with database.transaction() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_an_old_database_is_brought_up_to_date_with_what_is_in_it(url: str) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(database_url.__file__).with_name("migrations")))
    engine = create_engine(database_url.read(url))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "0001")
        connection.execute(text("INSERT INTO events (at, name, body) VALUES (1.5, 'Tick', '{\"at\": 1.5}')"))
    engine.dispose()
    database = Database.open(url)
    assert list(Journal(database).events()) == [events.Tick(1.5)]
    database.close()


def test_a_database_of_a_later_version_is_left_alone(url: str) -> None:
    with contextlib.closing(Database.open(url)) as database, database.unguarded() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseUnusable, match="is of a later version of the hub"):
        Database.open(url)


def test_of_many_who_migrate_at_once_each_finds_the_tables_whole(url: str) -> None:
    def migrated(_number: int) -> int:
        database = Database.open(url)
        length = Journal(database).length()
        database.close()
        return length

    with ThreadPoolExecutor(4) as together:
        assert list(together.map(migrated, range(4))) == [0, 0, 0, 0]


def test_numbers_do_not_end_with_31_bits(database: Database) -> None:
    journal, far = Journal(database), 2**40
    row = {"seq": far, "at": 1.0, "name": "Tick", "body": '{"at": 1.0}'}
    database.write(lambda connection: connection.execute(insert(EVENTS).values(row)))
    assert journal.length() == far
    assert list(journal.events(after=far - 1)) == [events.Tick(1.0)]
