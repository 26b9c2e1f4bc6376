"""The client SDK against a hub that only talks, over the embedded broker."""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fakes.brokers import free_port
from fakes.hub import TalkingHub, talking_hub
from resonator.client import Client, read_job
from resonator.client.order import name_for, new_job_id
from resonator.errors import BusUnreachable, InputInvalid, Refused
from resonator.failures import Failure, FailureKind
from resonator.ids import is_name
from resonator.jobspec import TuningJob, validate
from resonator.messages import (
    MAX_CHUNK,
    MAX_INLINE,
    BenchRequest,
    BlobRef,
    DeviceDrain,
    DeviceReport,
    DeviceUndrain,
    JobState,
    JobStatus,
    JobSubmit,
)
from resonator_hub.broker import EmbeddedBroker


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    broker = EmbeddedBroker()
    await broker.start()
    yield broker
    await broker.stop()


@pytest.fixture
async def hub(broker: EmbeddedBroker) -> AsyncIterator[TalkingHub]:
    async with talking_hub(broker.url) as hub:
        yield hub


@pytest.fixture
async def client(broker: EmbeddedBroker, hub: TalkingHub) -> AsyncIterator[Client]:
    async with Client.connect(broker.url, timeout=5) as client:
        yield client


@pytest.fixture
def job() -> TuningJob:
    spec = {"model": {"onnx": "model.onnx"}, "target": {"kind": "cpu"}}
    return validate({"metadata": {"name": "net"}, "spec": spec})


def status(job: str = "net-1", state: JobState = JobState.RUNNING, **fields: object) -> JobStatus:
    return JobStatus.model_validate({"job": job, "name": "net", "state": state, **fields})


async def test_a_small_model_rides_along(
    client: Client, hub: TalkingHub, job: TuningJob, tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"onnx" * 100)

    job_id = await client.submit(job, model)

    request = hub.asked[0]
    assert isinstance(request, JobSubmit)
    assert (request.job, request.spec) == (job_id, job)
    assert list(hub.blobs.values()) == [b"onnx" * 100]
    assert job_id.startswith("net-")


async def test_a_large_model_is_pulled_by_the_hub(
    client: Client, hub: TalkingHub, job: TuningJob, tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(os.urandom(MAX_INLINE + MAX_CHUNK + 1))

    await client.submit(job, model)

    request = hub.asked[0]
    assert isinstance(request, JobSubmit)
    assert request.model.data is None
    assert hub.blobs[request.model.digest] == model.read_bytes()


async def test_a_rejection_is_the_hubs_sentence(
    client: Client, hub: TalkingHub, job: TuningJob, tmp_path: Path
) -> None:
    hub.reason = "operator Bogus is not supported"
    model = tmp_path / "model.onnx"
    model.write_bytes(b"onnx")

    with pytest.raises(Refused, match=r"^operator Bogus is not supported$"):
        await client.submit(job, model)


async def test_a_job_is_followed_until_it_has_ended(client: Client, hub: TalkingHub) -> None:
    await hub.publish(status(trials=1))

    seen = []
    async for seen_status in client.follow("net-1"):
        seen.append((seen_status.trials, seen_status.state))
        if seen_status.trials == 1 and len(seen) == 1:
            await hub.publish(status(trials=2))
            await hub.publish(status(trials=3, state=JobState.SUCCEEDED))

    assert seen[0] == (1, JobState.RUNNING)
    assert seen[-1] == (3, JobState.SUCCEEDED)


async def test_a_job_that_has_ended_is_followed_no_further(client: Client, hub: TalkingHub) -> None:
    await hub.publish(status(state=JobState.FAILED))

    assert [one.state async for one in client.follow("net-1")] == [JobState.FAILED]
    assert (await client.wait("net-1")).state is JobState.FAILED


async def test_a_job_is_found_by_the_beginning_of_its_id(client: Client, hub: TalkingHub) -> None:
    for name in ("net-12", "net-13", "net-1"):
        await hub.publish(status(name))

    assert (await client.job("net-12")).job == "net-12"
    assert (await client.job("net-1")).job == "net-1"
    with pytest.raises(InputInvalid, match=r"job 'net' fits 3 jobs \(net-12, net-13, net-1\)"):
        await client.job("net")
    for absent in ("x", "a/b", "net-111"):
        with pytest.raises(InputInvalid, match=f"knows no job '{absent}'; `resonator jobs` lists"):
            await client.job(absent)


async def test_a_job_is_canceled_once(client: Client, hub: TalkingHub) -> None:
    await hub.publish(status())

    assert (await client.cancel("net-1")).state is JobState.CANCELED
    assert (await client.cancel("net-1")).state is JobState.CANCELED


async def test_a_bundle_is_fetched_whole(client: Client, hub: TalkingHub, tmp_path: Path) -> None:
    data = os.urandom(3 * MAX_CHUNK + 7)
    await hub.publish(status(state=JobState.SUCCEEDED, bundle=hub.keep(data)))

    await client.fetch("net-1", tmp_path / "b.tar")

    assert (tmp_path / "b.tar").read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["b.tar"]


async def test_a_broken_off_fetch_goes_on_where_it_was(
    client: Client, hub: TalkingHub, tmp_path: Path
) -> None:
    data = os.urandom(2 * MAX_CHUNK)
    blob = hub.keep(data)
    await hub.publish(status(state=JobState.SUCCEEDED, bundle=blob))
    partial = tmp_path / "b.tar.part" / "partial" / blob.digest
    partial.parent.mkdir(parents=True)
    partial.write_bytes(data[:MAX_CHUNK])

    await client.fetch("net-1", tmp_path / "b.tar")

    assert (tmp_path / "b.tar").read_bytes() == data


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let writes beyond `size` bytes fail, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_disk_that_fills_up_ends_a_fetch_and_what_came_is_kept(
    client: Client, hub: TalkingHub, tmp_path: Path
) -> None:
    data = os.urandom(2 * MAX_CHUNK)
    await hub.publish(status(state=JobState.SUCCEEDED, bundle=hub.keep(data)))

    with (
        files_of_at_most(MAX_CHUNK),
        pytest.raises(InputInvalid, match=r"b\.tar cannot be written"),
    ):
        await client.fetch("net-1", tmp_path / "b.tar")
    assert not (tmp_path / "b.tar").exists()
    await client.fetch("net-1", tmp_path / "b.tar")

    assert (tmp_path / "b.tar").read_bytes() == data


async def test_a_bundle_that_is_another_is_not_written(
    client: Client, hub: TalkingHub, tmp_path: Path
) -> None:
    blob = BlobRef(digest=hashlib.sha256(b"true").hexdigest(), size=4)
    hub.blobs[blob.digest] = b"fake"
    await hub.publish(status(state=JobState.SUCCEEDED, bundle=blob))

    with pytest.raises(BusUnreachable, match="what came has the digest"):
        await client.fetch("net-1", tmp_path / "b.tar")
    assert not (tmp_path / "b.tar").exists()


async def test_a_bundle_that_the_hub_has_lost_is_said_to_be(
    client: Client, hub: TalkingHub, tmp_path: Path
) -> None:
    await hub.publish(status(state=JobState.SUCCEEDED, bundle=BlobRef(digest="a" * 64, size=4)))

    with pytest.raises(BusUnreachable, match="the peer does not have it"):
        await client.fetch("net-1", tmp_path / "b.tar")


async def test_only_a_job_that_succeeded_has_a_bundle(
    client: Client, hub: TalkingHub, tmp_path: Path
) -> None:
    failure = Failure(kind=FailureKind.WRONG_OUTPUT, detail="off by 2")
    await hub.publish(status(state=JobState.FAILED, failure=failure))

    with pytest.raises(Refused, match="net-1 is failed and has no bundle: WRONG_OUTPUT: off by 2"):
        await client.fetch("net-1", tmp_path / "b.tar")


async def test_a_bundle_cannot_be_written_where_there_is_no_folder(
    client: Client, hub: TalkingHub, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    await hub.publish(status(state=JobState.SUCCEEDED, bundle=hub.keep(b"x")))

    with pytest.raises(InputInvalid, match=r"b\.tar cannot be written"):
        await client.fetch("net-1", tmp_path / "file" / "b.tar")


async def test_a_bundle_is_benched_as_a_job(client: Client, hub: TalkingHub, tmp_path: Path) -> None:
    (tmp_path / "my bundle.tar").write_bytes(b"bundle")

    job = await client.bench(tmp_path / "my bundle.tar", "el300")

    request = hub.asked[0]
    assert isinstance(request, BenchRequest)
    assert request.device == "el300"
    assert job.startswith("bench-my-bundle-")


async def test_devices_are_found_by_name_with_or_without_site(client: Client, hub: TalkingHub) -> None:
    hub.devices = tuple(DeviceReport(device=name, state="idle") for name in ("a/x", "b/x", "b/y"))

    assert len(await client.devices()) == 3
    assert (await client.device("y")).device == "b/y"
    assert (await client.device("a/x")).device == "a/x"
    with pytest.raises(InputInvalid, match=r"several sites \(a/x, b/x\)"):
        await client.device("x")
    with pytest.raises(InputInvalid, match="knows no device 'z'; it knows a/x, b/x, b/y"):
        await client.device("z")


async def test_a_fleet_too_large_for_one_message_is_listed_in_several(
    client: Client, hub: TalkingHub
) -> None:
    hub.devices = tuple(DeviceReport(device=f"a/box-{number:02}", state="idle") for number in range(25))
    hub.page = 10

    assert await client.devices() == hub.devices


async def test_a_device_is_drained_and_undrained_by_whatever_name_the_hub_knows(
    client: Client, hub: TalkingHub
) -> None:
    hub.devices = (DeviceReport(device="local/box", state="idle"),)

    assert (await client.drain("box", "it is moved")).device == "local/box"
    assert (await client.undrain("local/box")).device == "local/box"
    assert hub.asked == [DeviceDrain(device="box", reason="it is moved"), DeviceUndrain(device="local/box")]
    with pytest.raises(InputInvalid, match="the reason has 201 characters; at most 200 are accepted"):
        await client.drain("box", "x" * 201)


async def test_without_a_broker_there_is_one_sentence() -> None:
    client = Client.connect(f"mqtt://127.0.0.1:{free_port()}", timeout=0.2)

    with pytest.raises(
        BusUnreachable, match=r"no broker answers at mqtt://127\.0\.0\.1:\d+ \(tried for 0\.2 s\)"
    ):
        await client.__aenter__()


async def test_without_a_hub_there_is_one_sentence(broker: EmbeddedBroker) -> None:
    async with Client.connect(broker.url, timeout=0.2) as client:
        with pytest.raises(BusUnreachable, match=r"no hub is online on.*start one with `resonator hub`"):
            await client.jobs()


async def test_a_hub_that_has_gone_is_named(broker: EmbeddedBroker) -> None:
    async with talking_hub(broker.url, online=False) as hub:
        await hub.announce(online=False)
        async with Client.connect(broker.url, timeout=0.2) as client:
            with pytest.raises(BusUnreachable, match="main has gone offline"):
                await client.jobs()


async def test_a_late_will_does_not_bury_a_newer_hub(broker: EmbeddedBroker) -> None:
    async with talking_hub(broker.url, online=False) as hub, Client.connect(broker.url, timeout=5) as client:
        await hub.announce(session=2)
        await hub.announce(session=1, online=False)

        assert await client.jobs() == ()


async def test_a_hub_is_back_when_a_later_one_of_its_name_is_gone(broker: EmbeddedBroker) -> None:
    async with talking_hub(broker.url, online=False) as hub, Client.connect(broker.url, timeout=5) as client:
        await hub.announce(session=2)
        await hub.announce(session=2, online=False)
        await hub.announce(session=1)

        assert await client.jobs() == ()


async def test_the_end_of_a_job_is_seen_even_if_the_news_of_it_is_lost(
    broker: EmbeddedBroker, hub: TalkingHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resonator.client.client.LOOK_S", 0.05)
    hub.statuses["j"] = JobStatus(job="j", name="j", state=JobState.RUNNING)
    async with Client.connect(broker.url, timeout=5) as client:
        following = client.follow("j")
        assert (await anext(following)).state is JobState.RUNNING
        hub.statuses["j"] = JobStatus(job="j", name="j", state=JobState.SUCCEEDED)
        assert [status.state async for status in following] == [JobState.SUCCEEDED]


async def test_a_hub_that_does_not_answer_is_said_to(broker: EmbeddedBroker, hub: TalkingHub) -> None:
    hub.peer._handlers.clear()
    async with Client.connect(broker.url, timeout=0.1) as client:
        with pytest.raises(BusUnreachable, match=r"the hub does not answer: no answer to job\.query"):
            await client.jobs()


def test_a_site_that_is_no_name_is_refused() -> None:
    with pytest.raises(InputInvalid, match="site 'a/b' is not a name"):
        Client.connect("mqtt://127.0.0.1:1883", "a/b")


async def test_the_models_path_counts_from_the_job_file(tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "job.yaml").write_text(
        "metadata: {name: net}\nspec: {model: {onnx: ../net.onnx}, target: {kind: cpu}}"
    )

    order = read_job(folder / "job.yaml")

    assert order.model == folder / "../net.onnx"
    assert order.job.metadata.name == "net"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("absent", None, "cannot be read: No such file"),
        ("empty", b"", "has 0 bytes"),
        ("folder", "dir", "is not a file"),
    ],
)
async def test_a_model_that_cannot_be_read_is_named(
    client: Client, job: TuningJob, tmp_path: Path, name: str, content: bytes | str | None, sentence: str
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        path.mkdir()

    with pytest.raises(InputInvalid, match=rf"model .*{name} {sentence}"):
        await client.submit(job, path)


@pytest.mark.parametrize("stem", ["net", "mein netz", ".hidden", "ünï", "x" * 200, "..."])
def test_any_file_name_gives_a_job_a_name(stem: str) -> None:
    name = name_for(Path(f"{stem}.onnx"))

    assert is_name(name)
    assert is_name(new_job_id(f"bench-{name}"))
