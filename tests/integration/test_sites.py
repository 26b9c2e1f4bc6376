"""Three sites behind brokers of their own, real processes all of them, and links that are slow or cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

import small_models
from fakes.guarantees import Books, Evidence, breaches, read_books, unfetchable
from fakes.kernels import build_c, push
from fakes.link import DSL
from fakes.programs import LONG_S, Program, small_order
from fakes.scripted_hub import NAME, ScriptedHub, scripted
from fakes.sender import sender
from fakes.sites import SITES, Federation, Site, federation
from fakes.stories import AgentLife, read
from resonator.bus import codec, topics
from resonator.bus.assembly import Assembly
from resonator.bus.blobs import BlobStore
from resonator.bus.mqtt import MqttBus
from resonator.bus.peer import Peer, Received
from resonator.ids import JobId, device_id
from resonator.jobspec import Measure, TuningJob
from resonator.messages import Ack, BlobChunk, DeviceState, JobState, KernelResult, Status, WindowOpened
from resonator_agent.outbox import Outbox
from resonator_hub.database import Database
from resonator_hub.journal import JOURNAL

TRIALS = 20
LEAST_QUEUE = 100
FAR = replace(DSL, latency_s=0.1)
"""So far away that a result cannot have been acknowledged by the time its link is cut."""
WINDOW_S = 5
"""A lease as short as can be: another box has the kernels of one that is cut off a few seconds later."""


def order() -> TuningJob:
    """A job whose kernels take longer to measure than to build, so that boxes hold some."""
    job = small_order(TRIALS)
    measure = Measure(number=1, repeat=3, min_repeat_ms=150, timeout_s=3.0)
    return job.model_copy(update={"spec": job.spec.model_copy(update={"measure": measure})})


async def test_a_job_on_slow_links_outlives_one_that_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESONATOR_WINDOW", str(WINDOW_S))
    model = tmp_path / "small.onnx"
    model.write_bytes(small_models.perceptron())
    async with federation(tmp_path) as fed:
        hub = await fed.start_hub("--slots", "1")
        boxes = dict(zip(SITES, await started(fed), strict=True))
        for site in fed.sites.values():
            site.link.slow(FAR)
        async with fed.client("south", timeout=30.0) as client:
            job = await client.submit(order(), model)
            cut = fed.sites[await first_measuring(boxes)]
            others = [box for name, box in boxes.items() if name != cut.name]
            cut.link.cut()
            await hub.logged("device unknown")
            assert {box.device: box.state for box in await client.devices()}[f"{cut.name}/box"] == "unknown"
            kept = results(fed, cut.name)
            assert kept, "what was measured is kept until the hub has it"

            await anybody_logs(others, next(iter(kept.values())).candidate)  # the lease is over
            kept = results(fed, cut.name)
            async with acknowledgements(cut) as acknowledged:
                await cut.link.restore()
                await acknowledged(kept)
            status = await asyncio.wait_for(client.wait(job), LONG_S)
            assert (status.state, status.trials) == (JobState.SUCCEEDED, TRIALS), status.failure
            assert await unfetchable(client, books(fed), tmp_path) == []
        assert await asyncio.gather(*(box.end(signal.SIGINT) for box in boxes.values())) == [0, 0, 0]
        assert await hub.end(signal.SIGINT) == 0
    check(fed, boxes, job)


@pytest.mark.parametrize("noticed", [False, pytest.param(True, marks=pytest.mark.nightly)])
async def test_a_box_behind_a_silent_link_measures_on_and_reports_later(
    noticed: bool, tmp_path: Path
) -> None:
    kernel, kernels = build_c("slow", tmp_path), [f"job/t0/c{number}" for number in range(8)]
    async with federation(tmp_path, ["north"]) as fed:
        site = fed.sites["north"]
        async with scripted(fed.cloud.outer_url, tmp_path, "north") as hub, acknowledgements(site) as taken:
            box = await fed.start_agent("north", "box")
            await hub.wait(DeviceState, lambda state: state.status is Status.IDLE)
            await hub.grant(1)
            await hub.wait(WindowOpened)
            for candidate in kernels:
                await hub.say("kernel", push(candidate, kernel))
            await box.logged(kernels[0])
            site.link.silence()
            await box.logged(kernels[-1])
            if noticed:  # by the keepalive only, which takes its time
                await fed.cloud.logged("exceeded timeout")
            kept = results(fed, "north")
            assert kernels[-1] in {result.candidate for result in kept.values()}
            assert kernels[-1] not in reported(hub)
            await site.link.restore()
            await taken(kept)
            assert await box.end(signal.SIGINT) == 0
            assert set(reported(hub)) == set(kernels)
            assert len(set(hub.ids(KernelResult))) == len(kernels)
    assert results(fed, "north") == {}


@pytest.mark.parametrize("mishap", ["full", "killed"])
async def test_what_a_sites_broker_loses_comes_again(mishap: str, tmp_path: Path) -> None:
    """More results than its queue holds, or its death with the queue: boxes still have them all."""
    async with federation(tmp_path, ["north"], max_queued=LEAST_QUEUE) as fed:
        site = fed.sites["north"]
        async with (
            scripted(fed.cloud.outer_url, tmp_path, "north") as hub,
            sender(site.broker.outer_url, "north", tmp_path) as box,
        ):
            site.link.cut()
            await box.report(3 * LEAST_QUEUE)
            if mishap == "full":
                await site.broker.logged("Outgoing messages are being dropped")
            else:
                await site.broker.end(signal.SIGKILL)
                await site.broker.start()
            await site.link.restore()
            await fed.cloud.logged("as north/broker/", count=2)
            await box.insist()
            assert reported(hub) == Counter(f"job/t0/c{number}" for number in range(3 * LEAST_QUEUE))


@pytest.mark.nightly
async def test_a_slow_link_stays_up_while_much_comes_down(tmp_path: Path) -> None:
    """At 1 Mbit/s the answer to a ping must not wait behind so much that the link is taken for dead."""
    data = os.urandom(3 * 2**20)
    async with federation(tmp_path, ["north"]) as fed:
        site = fed.sites["north"]
        async with scripted(fed.cloud.outer_url, tmp_path, "north") as hub:
            digest = hub.store.put(data)
            site.link.slow(DSL)
            store = BlobStore(tmp_path / "north-blobs")
            await pulled(site, Assembly(store, digest, len(data)))
            assert store.read(digest, 0, 0)[1] == len(data)
        assert fed.cloud.log.count("as north/broker/") == 1
        assert site.link.carried < 1.2 * len(data)


async def pulled(site: Site, assembly: Assembly) -> None:
    """Have a blob of the hub's come to a site's box."""
    news = asyncio.Event()

    async def accept(received: Received) -> None:
        assert isinstance(received.message, BlobChunk)
        assembly.accept(received.message)
        news.set()

    peer = Peer(MqttBus(site.broker.outer_url), NAME)
    peer.on(BlobChunk, accept)
    await peer.bus.subscribe(topics.device_dn(site.name, NAME, "blob"))
    async with peer.bus:
        serving = asyncio.ensure_future(peer.serve())
        await peer.bus.wait_connected(LONG_S)
        while not assembly.over:
            news.clear()
            for request in assembly.requests(asyncio.get_running_loop().time()):
                peer.post(topics.device_up(site.name, NAME, "blob"), request)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(news.wait(), 1.0)
    await serving


def reported(hub: ScriptedHub) -> Counter[str]:
    """Count the results by candidate that a hub has taken, repetitions left out as it leaves them out."""
    return Counter(
        received.message.candidate
        for received in hub.heard
        if isinstance(received.message, KernelResult) and not received.repeated
    )


def check(fed: Federation, boxes: dict[str, Program], job: JobId) -> None:
    """Nothing is lost, every result is taken and counted once, and no two windows of a box overlap."""
    written = books(fed)
    devices = {name: device_id(name, "box") for name in boxes}
    lives = [AgentLife(devices[name], 1, tuple(read(box.log))) for name, box in boxes.items()]
    outboxes = {devices[name]: fed.agent_state(name, "box") / "outbox.sqlite" for name in boxes}
    assert breaches(Evidence([job], written, lives, outboxes)) == []
    told = Counter((event.device, event.epoch, event.candidate) for event in written.measured())
    assert [which for which, count in told.items() if count > 1] == []
    assert all(not results(fed, name) for name in boxes)


async def started(fed: Federation) -> list[Program]:
    """Start a box at each site."""
    return await asyncio.gather(*(fed.start_agent(name, "box") for name in SITES))


async def first_measuring(boxes: dict[str, Program]) -> str:
    """Return the site whose box is the first that has measured a kernel."""
    waiting = {asyncio.create_task(box.logged("/t0/c")): name for name, box in boxes.items()}
    done = await first(waiting)
    return waiting[done]


async def anybody_logs(boxes: Iterable[Program], text: str) -> None:
    """Wait until one of the boxes tells of something."""
    await first([asyncio.create_task(box.logged(text)) for box in boxes])


async def first(waiting: Iterable[asyncio.Task[None]]) -> asyncio.Task[None]:
    """Return the one that is done first, and give up the others."""
    done, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for one in others:
        one.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for one in done:
        one.result()
    return done.pop()


@contextlib.asynccontextmanager
async def acknowledgements(site: Site) -> AsyncIterator[Callable[[Iterable[str]], Awaitable[None]]]:
    """Listen to what the hub acknowledges to the box of a site; yields what waits for some messages' turn."""
    heard: set[str] = set()
    news = asyncio.Condition()

    async def hear(received: Received) -> None:
        assert isinstance(received.message, Ack)
        async with news:
            heard.update(received.message.ids)
            news.notify_all()

    async def wait(ids: Iterable[str]) -> None:
        async with news:
            await asyncio.wait_for(news.wait_for(lambda: heard.issuperset(ids)), LONG_S)

    peer = Peer(MqttBus(site.broker.outer_url), "eavesdropper")
    peer.on(Ack, hear)
    await peer.bus.subscribe(topics.device_dn(site.name, "box", "ack"))
    async with peer.bus:
        serving = asyncio.ensure_future(peer.serve())
        await peer.bus.wait_connected(LONG_S)
        yield wait
    await serving


def results(fed: Federation, site: str) -> dict[str, KernelResult]:
    """Return the results that the box of a site keeps, by the ids of their messages."""
    outbox = Outbox(fed.agent_state(site, "box") / "outbox.sqlite")
    try:
        messages = {kept.id: codec.decode(kept.payload).message for kept in outbox.pending()}
    finally:
        outbox.close()
    return {name: message for name, message in messages.items() if isinstance(message, KernelResult)}


def books(fed: Federation) -> Books:
    """Read what the hub has written down."""
    database = Database.read(fed.hub_state / JOURNAL)
    try:
        return read_books(database)
    finally:
        database.close()
