"""What clients ask: checked, done once, answered on their own topic; bad input changes nothing else."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgpack
import pytest

import small_models
from fakes.compute import FakeCompute
from fakes.orders import MODEL, carried, spec
from fakes.shell import CLIENT, SITE, Shell, identity, shell, state
from resonator import bundle
from resonator.bus import topics
from resonator.bus.blobs import digest_of
from resonator.cli.pictures import device_picture, devices_table
from resonator.failures import FailureKind
from resonator.ids import DeviceId, JobId
from resonator.jobspec import TargetSpec
from resonator.messages import (
    MAX_MESSAGE,
    BenchRequest,
    BlobAbsent,
    BlobChunk,
    BlobRef,
    BlobRequest,
    DeviceDrain,
    DeviceList,
    DeviceQuery,
    JobAccepted,
    JobCancel,
    JobList,
    JobQuery,
    JobState,
    JobStatus,
    JobSubmit,
    Message,
    Rejected,
    SiteList,
    TaskStatus,
)
from resonator.messages import Offer as MessageOffer
from resonator.tensors import TensorSpec
from resonator_hub.fleet import Registry
from resonator_hub.jobs.blob_rights import BlobRights
from resonator_hub.jobs.board import Board
from resonator_hub.jobs.reception import Reception
from resonator_hub.jobs.requests import PAGE, Desk, Requests
from resonator_hub.jobs.serving import Serving
from resonator_hub.jobs.store import Jobs
from resonator_hub.jobs.submissions import Submissions
from resonator_hub.scheduler import Scheduler
from resonator_hub.scheduler.events import DeviceDrained, DeviceSeen, HubStarted, JobSubmitted, Offer

PUSHED = digest_of(b"pushed")


@dataclass
class Office:
    shell: Shell
    scheduler: Scheduler
    jobs: Jobs
    registry: Registry

    def step(self) -> None:
        """Let the scheduler know of what was taken."""
        while self.shell.events:
            self.scheduler.step(self.shell.events.pop(0))

    def device(self) -> None:
        offer = Offer("cpu", "{}")
        self.scheduler.step(DeviceSeen(0.0, DeviceId("local/box"), 1, 0, "cpu", (offer,), (("a", "b"),)))

    async def ask(self, message: Message, **how: str) -> Message:
        """Ask, and return the answer."""
        sent = await self.shell.client_says(message, **how)
        topic, answer = await self.shell.broker.answer_to(sent)
        assert topic == topics.client_dn(SITE, CLIENT)
        return answer

    async def submit(self, job: str = "j", model: bytes = MODEL, **body: object) -> Message:
        return await self.ask(JobSubmit(job=job, spec=spec(**body), model=carried(model)))


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with shell(tmp_path) as base:
        scheduler, jobs = Scheduler(), Jobs(base.database)
        scheduler.step(HubStarted(0.0, 1))
        registry = Registry(base.database)
        registry.keep(DeviceId("local/box"), identity())
        desk, serving = Desk(base.peer), Serving(base.peer, base.blobs, blob_rights(base, jobs))
        Requests(desk, base.inbox, scheduler, registry, lambda: SiteList(sites=()), jobs)
        submissions = Submissions(
            desk, base.inbox, scheduler, jobs, base.blobs, serving, Reception(FakeCompute())
        )
        yield Office(base, scheduler, jobs, registry)
        await submissions.close()


def blob_rights(base: Shell, jobs: Jobs) -> BlobRights:
    """Rights of a device to which one blob was pushed, where no job has made a bundle."""
    return BlobRights(base.inbox, base.blobs, jobs, lambda _, digest: digest == PUSHED, lambda _: ())


def failure_of(answer: Message) -> tuple[FailureKind, str]:
    assert isinstance(answer, Rejected)
    return answer.failure.kind, answer.failure.detail


# --- submissions ------------------------------------------------------------------------------------------


async def test_a_job_is_journalled_with_its_description_and_then_accepted(office: Office) -> None:
    answer = await office.submit(priority=7)
    assert answer == JobAccepted(job="j")
    (event,) = office.shell.events
    assert isinstance(event, JobSubmitted)
    assert (event.job, event.by, event.role, event.order.priority) == ("j", "local/client/me", "", 7)
    assert office.jobs.get(JobId("j")).model == digest_of(MODEL)
    assert office.shell.blobs.get(digest_of(MODEL)) == MODEL


async def test_nothing_is_accepted_before_it_is_journalled(office: Office) -> None:
    office.shell.hold.clear()
    await office.shell.client_says(JobSubmit(job="j", spec=spec(), model=carried(MODEL)))
    assert office.shell.broker.sent(JobAccepted) == []
    office.shell.hold.set()
    await office.shell.broker.wait_for(JobAccepted)
    assert len(office.shell.events) == 1


async def test_the_same_job_again_is_accepted_again_and_done_once(office: Office) -> None:
    assert await office.submit() == JobAccepted(job="j")
    assert await office.submit() == JobAccepted(job="j")
    assert len(office.shell.events) == 1


async def test_the_same_job_at_the_same_time_is_done_once(office: Office) -> None:
    office.shell.hold.clear()
    request = JobSubmit(job="j", spec=spec(), model=carried(MODEL))
    await office.shell.client_says(request)
    await office.shell.client_says(request)
    office.shell.hold.set()
    await office.shell.broker.wait_for(JobAccepted, 2)
    assert len(office.shell.events) == 1


async def test_another_job_of_the_same_id_is_rejected(office: Office) -> None:
    await office.submit()
    kind, detail = failure_of(await office.submit(priority=9))
    assert kind is FailureKind.JOB_INVALID
    assert "'j' exists already" in detail
    assert len(office.shell.events) == 1


@pytest.mark.parametrize("model", [b"not a model", MODEL[: len(MODEL) // 2]])
async def test_what_is_no_model_is_rejected(office: Office, model: bytes) -> None:
    kind, detail = failure_of(await office.submit(model=model))
    assert kind is FailureKind.MODEL_INVALID
    assert detail
    assert office.shell.events == []


async def test_an_open_dimension_is_named(office: Office) -> None:
    kind, detail = failure_of(await office.submit(model=small_models.residual_net(batch="n")))
    assert kind is FailureKind.MODEL_INVALID
    assert "image" in detail
    assert "--shape" in detail


async def test_a_target_that_the_fleet_does_not_have_is_rejected(office: Office) -> None:
    office.device()
    kind, detail = failure_of(await office.submit(target=TargetSpec(labels={"a": "c"})))
    assert kind is FailureKind.NO_MATCHING_DEVICE
    assert "a=b" in detail


async def test_bytes_that_are_not_what_was_announced_are_rejected(office: Office) -> None:
    other = carried(MODEL).model_copy(update={"data": zlib.compress(b"something else")})
    bomb = BlobRef(digest=digest_of(MODEL), size=10, data=zlib.compress(bytes(10**7)))
    for number, ref in enumerate((other, bomb, carried(MODEL).model_copy(update={"data": b"no zlib"}))):
        kind, _ = failure_of(await office.ask(JobSubmit(job=f"j{number}", spec=spec(), model=ref)))
        assert kind is FailureKind.BLOB_CORRUPT
    assert office.shell.events == []


async def test_a_model_that_did_not_come_along_is_pulled(office: Office) -> None:
    ref = BlobRef(digest=digest_of(MODEL), size=len(MODEL))
    await office.shell.client_says(JobSubmit(job="j", spec=spec(), model=ref))
    asked = (await office.shell.broker.wait_for(BlobRequest)).message
    assert isinstance(asked, BlobRequest)
    piece = BlobChunk(digest=ref.digest, offset=0, total=len(MODEL), data=MODEL)
    await office.shell.client_says(piece, channel="blob")
    await office.shell.broker.wait_for(JobAccepted)
    await office.shell.client_says(piece, channel="blob")
    assert office.shell.peer.refused["unasked"] == 1


async def test_a_model_that_the_client_does_not_have_is_rejected(office: Office) -> None:
    ref = BlobRef(digest=digest_of(MODEL), size=len(MODEL))
    await office.shell.client_says(JobSubmit(job="j", spec=spec(), model=ref))
    await office.shell.broker.wait_for(BlobRequest)
    await office.shell.client_says(BlobAbsent(digest=ref.digest), channel="blob")
    kind, detail = failure_of((await office.shell.broker.wait_for(Rejected)).message)
    assert kind is FailureKind.BLOB_CORRUPT
    assert "could not be fetched from you" in detail


async def test_a_bundle_is_measured_as_a_job_without_trials(office: Office) -> None:
    tensor = TensorSpec(name="x", shape=(1,), dtype="float32")
    manifest = bundle.Manifest(name="m", target='{"kind": "llvm"}', inputs=(tensor,), outputs=(tensor,))
    data = bundle.pack(b"library", manifest)
    assert await office.ask(BenchRequest(job="b", bundle=carried(data))) == JobAccepted(job="b")
    (event,) = office.shell.events
    assert isinstance(event, JobSubmitted)
    assert (event.order.trials, event.order.bundle) == (0, digest_of(data))
    kind, _ = failure_of(await office.ask(BenchRequest(job="c", bundle=carried(b"no bundle"))))
    assert kind is FailureKind.MODEL_INVALID


# --- questions ----------------------------------------------------------------------------------------------


async def test_jobs_are_listed_told_and_canceled(office: Office) -> None:
    await office.submit()
    office.step()
    everything = await office.ask(JobQuery())
    one = await office.ask(JobQuery(job="j"))
    assert isinstance(everything, JobList)
    assert everything == one
    assert everything.jobs[0].state is JobState.QUEUED
    canceled = await office.ask(JobCancel(job="j"))
    office.step()
    assert isinstance(canceled, JobStatus)
    again = await office.ask(JobCancel(job="j"))
    assert isinstance(again, JobStatus)
    assert again.state is JobState.CANCELED
    assert office.shell.events == []


async def test_a_job_that_is_not_known_is_rejected(office: Office) -> None:
    for question in (JobQuery(job="x"), JobCancel(job="x")):
        assert failure_of(await office.ask(question))[0] is FailureKind.JOB_INVALID


async def test_devices_are_listed_with_what_they_are(office: Office) -> None:
    office.device()
    for name in (None, "box", "local/box"):
        answer = await office.ask(DeviceQuery(device=name))
        assert isinstance(answer, DeviceList)
        assert answer.devices[0].identity == identity()
    kind, detail = failure_of(await office.ask(DeviceQuery(device="elsewhere")))
    assert kind is FailureKind.NO_MATCHING_DEVICE
    assert "known are: local/box" in detail


async def test_blobs_are_served_in_pieces(office: Office) -> None:
    digest = office.shell.blobs.put(b"0123456789")
    await office.shell.client_says(BlobRequest(digest=digest, offset=4, length=3), channel="blob")
    chunk = (await office.shell.broker.wait_for(BlobChunk)).message
    assert isinstance(chunk, BlobChunk)
    assert (chunk.data, chunk.offset, chunk.total) == (b"456", 4, 10)
    await office.shell.client_says(BlobRequest(digest="0" * 64, offset=0, length=3), channel="blob")
    await office.shell.broker.wait_for(BlobAbsent)


# --- bad input ----------------------------------------------------------------------------------------------


async def test_an_answer_to_somebody_else_is_not_sent(office: Office) -> None:
    await office.shell.client_says(JobQuery(), reply_to=topics.client_dn(SITE, "victim"))
    assert office.shell.peer.refused["reply_to"] == 1
    assert office.shell.broker.published == []
    assert isinstance(await office.ask(JobQuery(), reply_to=topics.client_dn(SITE, CLIENT)), JobList)


def envelope(**changes: object) -> bytes:
    plain = {"v": 1, "id": "1", "type": "job.query", "src": "me", "body": {}}
    packed: bytes = msgpack.packb({**plain, **changes})
    return packed


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not msgpack",
        b"{}",
        bytes(MAX_MESSAGE + 1),
        envelope(v=2),
        envelope(type="job.destroy"),
        envelope(body={"job": "../.."}),
        envelope(type="job.submit", body={"job": "j"}),
    ],
    ids=["empty", "text", "json", "oversized", "version", "type", "name", "fields"],
)
async def test_what_is_no_message_is_counted_and_changes_nothing(office: Office, payload: bytes) -> None:
    await office.shell.hear_bytes(topics.client_up(SITE, CLIENT), payload)
    assert office.shell.peer.refused["invalid"] == 1
    assert office.shell.broker.published == []
    assert office.shell.events == []
    assert await office.submit() == JobAccepted(job="j")


async def test_a_message_for_others_and_one_on_a_foreign_topic_are_counted(office: Office) -> None:
    await office.shell.client_says(JobAccepted(job="j"))
    assert office.shell.peer.refused["unexpected"] == 1
    await office.shell.hear(topics.device_up(SITE, "box", "state"), JobQuery())
    assert office.shell.peer.refused["misplaced"] == 1
    await office.shell.client_says(state())
    assert office.shell.events == []


# --- the board ----------------------------------------------------------------------------------------------


async def test_the_more_jobs_change_the_less_often_each_is_told(tmp_path: Path) -> None:
    async with shell(tmp_path) as base:
        board = Board(base.peer, lambda job: JobStatus(job=job, name="n", state=JobState.QUEUED), owner)

        assert [board.pause_s(jobs) for jobs in (1, 4, 1000)] == [0.2, 0.2, 50.0]


async def test_the_end_of_a_job_is_told_at_once_and_so_is_what_is_due_at_the_end(tmp_path: Path) -> None:
    async with shell(tmp_path) as base:
        state = {JobId(name): JobState.RUNNING for name in ("a", "b")}
        board = Board(
            base.peer, lambda job: JobStatus(job=job, name="n", state=state[job]), owner, interval_s=3600.0
        )
        for job in state:
            board.report(job)
        await base.broker.wait_for(JobStatus, 2)
        state[JobId("a")] = JobState.SUCCEEDED
        board.report(JobId("a"), ended=True)
        told = await base.broker.wait_for(JobStatus, 3)
        assert isinstance(told.message, JobStatus)
        assert (told.message.job, told.message.state) == ("a", JobState.SUCCEEDED)
        state[JobId("b")] = JobState.CANCELED
        board.report(JobId("b"))
        await board.close(5.0)
        told = await base.broker.wait_for(JobStatus, 4)
        assert isinstance(told.message, JobStatus)
        assert (told.message.job, told.message.state) == ("b", JobState.CANCELED)


def owner(_job: JobId) -> tuple[str, str]:
    return SITE, CLIENT


async def test_many_changes_are_one_message_and_the_last_is_always_told(tmp_path: Path) -> None:
    trials = [0]
    async with shell(tmp_path) as base:

        def status(job: JobId) -> JobStatus:
            return JobStatus(job=job, name="n", state=JobState.RUNNING, trials=trials[0])

        board = Board(base.peer, status, lambda _job: (SITE, CLIENT), interval_s=0.001)
        for count in range(50):
            trials[0] = count
            board.report(JobId("j"))
        await base.broker.wait_for(JobStatus)
        trials[0] = 99
        board.report(JobId("j"))
        await board.close(10.0)
        told = [getattr(decoded.message, "trials", None) for decoded in base.broker.sent(JobStatus)]
        assert told == [49, 99]
        assert topics.job_status(SITE, "j") in base.broker.retained


def test_the_list_of_jobs_fits_into_a_message() -> None:
    from resonator_hub.jobs.requests import _within_limits

    task = TaskStatus(task="j/t0", name="conv", weight=1)
    statuses = [
        JobStatus(job=f"j{n}", name="n", state=JobState.RUNNING, tasks=(task,) * 4000) for n in range(4)
    ]
    assert [len(status.tasks) for status in _within_limits(statuses)] == [4000, 4000, 0, 0]


async def test_anybody_without_tls_may_drain_a_device_which_proves_nothing(office: Office) -> None:
    office.device()
    await office.ask(DeviceDrain(device="box"))
    (event,) = office.shell.events
    assert event == DeviceDrained(event.at, DeviceId("local/box"), "", "local/client/me", "")


async def test_two_devices_of_one_name_are_drained_by_their_sites(office: Office) -> None:
    for device in ("local/box", "far/box"):
        office.scheduler.step(DeviceSeen(0.0, DeviceId(device), 1, 0, "cpu", (Offer("cpu", "{}"),)))
    kind, detail = failure_of(await office.ask(DeviceDrain(device="box")))
    assert kind is FailureKind.NO_MATCHING_DEVICE
    assert detail == "device 'box' is at several sites: far/box, local/box; name one of them"


async def test_a_large_fleet_is_listed_page_by_page(office: Office) -> None:
    for number in range(PAGE + 1):
        name = DeviceId(f"local/box-{number:04}")
        office.scheduler.step(DeviceSeen(0.0, name, 1, 0, "cpu", (Offer("cpu", "{}"),)))
    first = await office.ask(DeviceQuery())
    assert isinstance(first, DeviceList)
    assert (len(first.devices), first.more) == (PAGE, True)
    last = await office.ask(DeviceQuery(after=first.devices[-1].device))
    assert isinstance(last, DeviceList)
    assert [report.device for report in last.devices] == [f"local/box-{PAGE:04}"]
    assert not last.more


async def test_attack_devices_that_say_absurd_things_of_themselves_are_listed_with_the_others(
    office: Office,
) -> None:
    # Given devices that take as much room as they can, and one that does not
    absurd = identity(
        cores=4096,
        cores_used=tuple(range(4096)),
        memory=2**50,
        cpu_model="x" * 2000,
        gpus=("g" * 2000,) * 64,
        offers=(MessageOffer(kind="cpu", target="t" * 4000),) * 16,
    )
    for number in range(30):
        device = DeviceId(f"local/absurd{number}")
        office.scheduler.step(DeviceSeen(0.0, device, 1, 0, "x" * 2000, (Offer("cpu", "t" * 4000),)))
        office.registry.keep(device, absurd)
    office.device()
    # When the fleet is asked for, and one of them
    listed = await office.ask(DeviceQuery())
    alone = await office.ask(DeviceQuery(device="absurd29"))
    # Then all are there, with what they say of themselves, in as many messages as that takes
    assert isinstance(listed, DeviceList)
    devices = list(listed.devices)
    while listed.more:
        assert len(listed.model_dump_json()) < MAX_MESSAGE
        listed = await office.ask(DeviceQuery(after=devices[-1].device))
        assert isinstance(listed, DeviceList)
        devices += listed.devices
    assert len({report.device for report in devices}) == len(devices) == 31
    assert devices[0].identity == absurd
    assert isinstance(alone, DeviceList)
    assert alone.devices[0].identity == absurd
    devices_table(devices)
    device_picture(alone.devices[0])
