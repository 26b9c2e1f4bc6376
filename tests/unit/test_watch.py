"""Metrics, probes and logs of a hub that tunes a job on fakes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from fakes.house import House
from fakes.shell import SITE
from resonator.bus.gate import Gate
from resonator.errors import InputInvalid
from resonator.failures import Failure, FailureKind
from resonator.ids import CandidateId, DeviceId, JobId, TaskId
from resonator.messages import JobState, JobStatus, KernelPush, KernelResult, Status
from resonator_hub.database import Database, sqlite_url
from resonator_hub.hub import Hub
from resonator_hub.scheduler import commands, events
from resonator_hub.watch.counts import Counts
from resonator_hub.watch.endpoint import parse_address
from resonator_hub.watch.labels import OTHERS, Bounded, largest
from resonator_hub.watch.narrator import Narrator
from resonator_hub.watch.observer import Observers
from resonator_hub.watch.vitals import Vitals
from resonator_hub.watch.watch import Watch

BOX = "local/box"


class Warm:
    """Compute processes, warm or not."""

    def __init__(self, *, warm: bool = True) -> None:
        self.warm = warm


@pytest.fixture(autouse=True)
def everything_is_logged() -> Iterator[None]:
    """Whatever other tests have configured."""
    before = structlog.get_config()
    structlog.reset_defaults()
    yield
    structlog.configure(**before)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    listening = await made.device.start()
    yield made
    listening.cancel()
    await asyncio.wait({listening})


@contextlib.asynccontextmanager
async def watched(
    hub: Hub, folder: Path, *, pool: Warm | None = None, address: str | None = "0"
) -> AsyncIterator[tuple[Watch, int]]:
    """Watch a hub, at a free port."""
    database = Database.open(sqlite_url(folder / "hub.db"))
    watch = Watch(hub, database, folder, [pool or Warm()])
    try:
        async with watch.running(address) as port:
            await watch.vitals.look()
            yield watch, port or 0
    finally:
        database.close()


async def get(port: int, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Ask for a page; return the status and the body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    said = await asyncio.wait_for(reader.read(), 10.0)
    writer.close()
    await writer.wait_closed()
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


async def metrics(port: int) -> dict[str, float]:
    """Return every sample, spelled `name label=value`."""
    status, body = await get(port, "/metrics")
    assert status == 200
    return {
        " ".join(
            (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items())))
        ): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


# --- metrics ----------------------------------------------------------------------------------------------


async def test_a_job_shows_in_every_metric_that_it_concerns(house: House, tmp_path: Path) -> None:
    def fails_once(result: KernelResult) -> KernelResult:
        if not result.candidate.endswith("/c0"):
            return result
        crash = Failure(kind=FailureKind.KERNEL_CRASH, detail="SIGSEGV")
        return result.model_copy(update={"latencies": (), "failure": crash})

    house.device.says = fails_once
    async with house.hub() as hub, watched(hub, tmp_path) as (_, port):
        await house.submit(trials=16)
        await house.ended()
        found = await metrics(port)
    assert found["resonator_jobs_submitted_total"] == 1
    assert found["resonator_jobs_ended_total state=succeeded"] == 1
    assert found["resonator_windows_granted_total site=local"] >= 1
    opened = found["resonator_windows_opened_total site=local"]
    assert opened == found["resonator_window_grant_seconds_count"] == 3
    assert found["resonator_trials_total outcome=failed site=local"] == 2
    assert found["resonator_trials_total outcome=measured site=local"] == 16  # two models among them
    assert found["resonator_failures_total fault=kernel kind=KERNEL_CRASH"] == 2
    assert found["resonator_kernel_round_trip_seconds_count"] == 18
    assert found["resonator_records_total"] == 16
    assert found["resonator_device_busy_seconds_total site=local"] == pytest.approx(0.018)
    assert found["resonator_compute_step_seconds_count stage=build"] == 16
    assert found["resonator_devices site=local state=idle"] == 1
    assert found["resonator_devices_by_hardware hardware=cpu Small CPU"] == 1
    assert found["resonator_compute_slots"] == 2
    assert found["resonator_journal_commit_seconds_count"] > 1
    assert found["resonator_event_to_step_seconds_count"] > found["resonator_journal_commit_seconds_count"]
    assert found["resonator_database_bytes"] > 0
    assert found["resonator_bus_connected"] == found["resonator_ready"] == 1
    assert found["process_resident_memory_bytes"] > 0


async def test_queues_show_while_a_device_is_busy(house: House, tmp_path: Path) -> None:
    async with house.hub(killed=True) as hub, watched(hub, tmp_path) as (_, port):
        house.device.paused.clear()
        await house.submit(trials=8)
        await house.broker.wait_for(KernelPush)
        found = await metrics(port)
    assert found["resonator_jobs phase=tuning"] == 1
    assert found["resonator_windows state=open"] == 1
    assert found["resonator_devices site=local state=running"] == 1
    assert found["resonator_kernels_outstanding"] >= 1


def counted(*steps: tuple[events.Event, tuple[commands.Command, ...]]) -> CollectorRegistry:
    registry = CollectorRegistry()
    counts = Counts(registry, lambda job: JobStatus(job=job, name="n", state=JobState.FAILED))
    for event, answer in steps:
        counts.stepped(event, answer, 0.25)
    return registry


def opening(epoch: int) -> commands.OpenWindow:
    return commands.OpenWindow(DeviceId(BOX), JobId("j"), epoch, 60.0)


def test_each_window_ends_once_and_for_a_reason() -> None:
    device = DeviceId(BOX)
    registry = counted(
        (events.Tick(1.0), (opening(1),)),
        (events.WindowOpened(2.0, device, 1), ()),
        (events.Tick(90.0), (opening(2),)),  # nobody said that the first is over
        (events.WindowRefused(91.0, device, 2, None, "no answer"), (opening(3),)),
        (events.WindowRefused(92.0, device, 3, 7, "seen"), (opening(8),)),
        (events.WindowClosed(99.0, device, 8, "drained"), (opening(9),)),
        (events.DeviceLost(100.0, device), ()),
        (events.DeviceLost(101.0, device), ()),
    )

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"resonator_windows_{name}_total", {"site": "local", **labels})

    ended = {reason: value("closed", reason=reason) for reason in ("lapsed", "drained", "lost")}
    assert ended == {"lapsed": 1, "drained": 1, "lost": 1}
    assert (value("refused", reason="unanswered"), value("refused", reason="refused")) == (1, 1)
    assert value("granted") == 5
    assert registry.get_sample_value("resonator_window_grant_seconds_sum") == 1.0


def test_failures_of_steps_count_by_kind_and_fault() -> None:
    broken = Failure(kind=FailureKind.BUILD_ERROR, detail="no")
    bad = Failure(kind=FailureKind.MODEL_INVALID, detail="no")
    registry = counted(
        (events.BuildFailed(1.0, JobId("j"), CandidateId("j/t0/c0"), broken, 0.5, 0.4), ()),
        (events.StageFailed(2.0, JobId("j"), "extract", bad), (commands.Report(JobId("j"), ended=True),)),
    )
    value = registry.get_sample_value
    assert value("resonator_failures_total", {"kind": "BUILD_ERROR", "fault": "kernel"}) == 1
    assert value("resonator_failures_total", {"kind": "MODEL_INVALID", "fault": "user"}) == 1
    assert value("resonator_compute_cpu_seconds_total", {"stage": "build"}) == 0.4
    assert value("resonator_jobs_ended_total", {"state": "failed"}) == 1


def test_sites_that_are_made_up_fill_nothing() -> None:
    label = Bounded(most=2)
    assert [label(name) for name in ("a", "b", "c", "a", "d")] == ["a", "b", OTHERS, "a", OTHERS]
    assert largest({"a": 1, "b": 5, "c": 2, "d": 4}, most=2) == {"b": 5, "d": 4, OTHERS: 3}


def test_an_observer_that_fails_costs_its_observation_alone() -> None:
    class Broken:
        def committed(self, _events: int, _seconds: float) -> None:
            raise RuntimeError("broken")

    seen: list[int] = []

    class Counting(Broken):
        def committed(self, events: int, _seconds: float) -> None:
            seen.append(events)

    observers = Observers()
    observers.add(Broken())  # type: ignore[arg-type]
    observers.add(Counting())  # type: ignore[arg-type]
    with structlog.testing.capture_logs() as logged:
        observers.committed(3, 0.1)
    assert seen == [3]
    assert [line["event"] for line in logged] == ["an observer failed"]


# --- probes -----------------------------------------------------------------------------------------------


async def test_a_hub_is_ready_when_nothing_is_missing(house: House, tmp_path: Path) -> None:
    pool = Warm(warm=False)
    async with house.hub() as hub, watched(hub, tmp_path, pool=pool) as (_, port):
        status, body = await get(port, "/readyz")
        assert (status, json.loads(body)["waiting_for"]) == (
            503,
            {"compute": "the compute processes are getting warm"},
        )
        pool.warm = True
        assert await get(port, "/readyz") == (200, b'{"ready": true, "waiting_for": {}}\n')
        assert (await get(port, "/healthz"))[0] == 200
        hub.prepared = False
        assert json.loads((await get(port, "/readyz"))[1])["waiting_for"] == {
            "journal": "the journal is being read"
        }


async def test_a_database_that_takes_no_writes_is_told(tmp_path: Path) -> None:
    Database.open(sqlite_url(tmp_path / "hub.db")).close()
    readonly = Database.open(f"sqlite:///file:{tmp_path / 'hub.db'}?uri=true")
    with readonly.transaction() as connection:
        connection.exec_driver_sql("PRAGMA query_only=ON")
    vitals = Vitals(readonly, tmp_path)
    await vitals.look()
    readonly.close()
    assert "readonly" in vitals.signs.trouble
    assert vitals.signs.disk_free_bytes is not None
    gone = Vitals(readonly, tmp_path / "gone")
    await gone.look()
    assert gone.signs.trouble == "the state directory cannot be used: No such file or directory"


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/", "GET", 404), ("/metrics", "POST", 405), ("/healthz", "HEAD", 200)]
)
async def test_nothing_but_get_is_answered(
    house: House, tmp_path: Path, path: str, method: str, status: int
) -> None:
    async with house.hub() as hub, watched(hub, tmp_path) as (_, port):
        answered, body = await get(port, path, method)
    assert answered == status
    assert bool(body) == (method != "HEAD")


async def test_whoever_speaks_no_http_is_dropped_and_others_are_served(house: House, tmp_path: Path) -> None:
    async with house.hub() as hub, watched(hub, tmp_path) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x" * 100_000)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10.0) == b""
        writer.close()
        assert (await get(port, "/healthz"))[0] == 200


async def test_a_port_that_is_taken_is_told_in_a_sentence(house: House, tmp_path: Path) -> None:
    async with house.hub() as hub, watched(hub, tmp_path) as (_, port):
        with pytest.raises(InputInvalid, match=f"nothing can listen at 127.0.0.1:{port}"):
            async with watched(hub, tmp_path, address=str(port)):
                pass


@pytest.mark.parametrize(
    ("text", "address"),
    [("9464", ("127.0.0.1", 9464)), ("0.0.0.0:80", ("0.0.0.0", 80)), ("[::1]:80", ("::1", 80))],
)
def test_an_address_is_a_host_and_a_port_or_a_port_of_this_machine(
    text: str, address: tuple[str, int]
) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "here", "host:", "host:99999", "host:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InputInvalid, match="is not an address such as"):
        parse_address(text)


# --- logs -------------------------------------------------------------------------------------------------


async def test_what_happens_is_logged_with_job_device_and_epoch(house: House) -> None:
    with structlog.testing.capture_logs() as logged:
        async with house.hub():
            await house.submit(trials=8)
            await house.ended()
            await house.device.announce(status=Status.OFFLINE)
            await asyncio.wait_for(
                until(lambda: any(line["event"] == "device lost" for line in logged)), 20.0
            )
    lines = {line["event"]: line for line in logged}
    window = {"job": "j", "device": BOX, "epoch": 1}
    for event, keys in {
        "job accepted": {"job": "j"},
        "device seen": {"device": BOX},
        "window granted": window,
        "window opened": window,
        "window closed": window,
        "kernel measured": window,
        "bundle delivered": {"job": "j"},
        "job ended": {"job": "j"},
        "device lost": {"device": BOX},
    }.items():
        assert event in lines, event
        assert set(keys) <= set(lines[event]), event
        of = next(line for line in logged if line["event"] == event)
        assert {key: of[key] for key in keys} == keys
    assert "candidate" in lines["kernel measured"]
    assert lines["job ended"]["state"] == "succeeded"
    assert SITE in lines["device lost"]["device"]


def test_what_goes_wrong_is_logged_with_what_it_is_about() -> None:
    device, job = DeviceId(BOX), JobId("j")
    lost = Failure(kind=FailureKind.DEVICE_DIRTY, detail="too hot")
    narrator = Narrator(lambda job: JobStatus(job=job, name="n", state=JobState.FAILED, failure=lost))
    with structlog.testing.capture_logs() as logged:
        narrator.stepped(events.Tick(1.0), [opening(4)], 0.0)
        narrator.stepped(events.WindowRefused(2.0, device, 4, 9, "seen"), [], 0.0)
        narrator.stepped(
            events.Measured(3.0, device, 4, job, CandidateId("j/t0/c1"), failure=lost),
            [commands.Report(job, ended=True)],
            0.0,
        )
        narrator.stepped(events.DeviceLost(4.0, device, certain=False), [], 0.0)
        narrator.stepped(events.StageFailed(5.0, job, "select", lost, TaskId("j/t0"), 1), [], 0.0)
    granted, refused, failed, ended, unknown, stage = logged
    window = {"job": "j", "device": BOX, "epoch": 4}
    for line in (granted, refused, failed):
        assert line.items() >= window.items()
    assert failed["candidate"] == "j/t0/c1"
    assert (ended["event"], ended["job"], ended["failure"]) == ("job ended", "j", "DEVICE_DIRTY: too hot")
    assert (unknown["event"], unknown["device"]) == ("device unknown", BOX)
    assert (stage["event"], stage["job"], stage["task"]) == ("step failed", "j", "j/t0")
    assert {line["log_level"] for line in (refused, failed, ended, unknown, stage)} == {"warning"}


def test_a_refused_message_of_a_device_is_logged_with_the_device() -> None:
    with structlog.testing.capture_logs() as logged:
        Gate().refuse("invalid", "resonator/v1/local/dev/box/up/state", "no message")
        Gate().refuse("invalid", "resonator/v1/local/client/me/up/request", "no message")
    assert [line.get("device") for line in logged] == [BOX, None]


# --- what is written about it -------------------------------------------------------------------------------


async def test_every_metric_is_in_the_table_of_the_documentation(house: House, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
    written = set(re.findall(r"^\| `(resonator_\w+)`", text, re.MULTILINE))
    async with house.hub(killed=True) as hub, watched(hub, tmp_path) as (watch, _):
        counters = {family.name for family in watch.registry.collect() if family.type == "counter"}
        families = {family.name for family in watch.registry.collect()}
    told = {f"{name}_total" if name in counters else name for name in families}
    assert {name for name in told if name.startswith("resonator_")} == written
