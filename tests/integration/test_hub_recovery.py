"""A real hub process is killed in the middle of a job that a real agent measures; a new one ends the job."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

import small_models
from fakes.brokers import free_port, mosquitto
from fakes.programs import LONG_S, Program, small_order
from resonator import bundle
from resonator.bus.blobs import digest_of
from resonator.client.client import Client
from resonator.messages import JobState, JobStatus
from resonator_hub.database import Database
from resonator_hub.journal import JOURNAL, Journal
from resonator_hub.scheduler import events

TRIALS = 24


class Site:
    """A hub that may be started again on the same state, one agent, and their broker."""

    def __init__(self, folder: Path, broker: str, url: str) -> None:
        self.folder, self.broker, self.url = folder, broker, url
        self.state = folder / "hub"

    async def start_hub(self) -> Program:
        port = self.url.rpartition(":")[2]
        broker = ["--broker", self.broker, "--port", port]
        return await Program.start(self.folder, "hub", *broker, "--state", str(self.state), "--slots", "1")

    async def start_agent(self) -> Program:
        where = ["--broker", self.url, "--state", str(self.folder / "agent")]
        options = ["--name", "box", "--max-foreign-load", "1.0"]
        return await Program.start(self.folder, "agent", *options, *where)

    def journal(self) -> list[events.Event]:
        database = Database.read(self.state / JOURNAL)
        try:
            return list(Journal(database).events())
        finally:
            database.close()


@asynccontextmanager
async def site(broker: str, folder: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        if broker == "mosquitto":
            url = (await stack.enter_async_context(mosquitto())).url
            yield Site(folder, url, url)
        else:
            yield Site(folder, "embedded", f"mqtt://127.0.0.1:{free_port()}")


@pytest.mark.parametrize("broker", ["mosquitto", pytest.param("embedded", marks=pytest.mark.nightly)])
async def test_a_job_survives_kill_9_of_its_hub(broker: str, tmp_path: Path) -> None:
    model = tmp_path / "small.onnx"
    model.write_bytes(small_models.perceptron())
    async with site(broker, tmp_path) as where:
        hub = await where.start_hub()
        await hub.logged("connected to broker")
        agent = await where.start_agent()
        try:
            async with Client.connect(where.url) as client:
                job = await client.submit(small_order(TRIALS), model)
                await under_way(client, job)
                assert await hub.end(signal.SIGKILL) == -signal.SIGKILL
                before = where.journal()

                hub = await where.start_hub()
                await hub.logged("connected to broker")
                status = await asyncio.wait_for(client.wait(job), LONG_S)
                assert status.state is JobState.SUCCEEDED, status.failure
                await client.fetch(job, tmp_path / "small.tar")
        finally:
            codes = [await program.end(signal.SIGINT) for program in (agent, hub)]
    assert codes == [0, 0], hub.log
    check(where.journal(), before, status)
    manifest, _ = bundle.read(tmp_path / "small.tar")
    assert status.bundle is not None
    assert status.bundle.digest == digest_of((tmp_path / "small.tar").read_bytes())
    assert manifest.trials == TRIALS


def check(after: list[events.Event], before: list[events.Event], status: JobStatus) -> None:
    """The journal goes on where it was, every trial counts once, and nothing that was known is lost."""
    assert after[: len(before)] == before
    assert isinstance(after[len(before)], events.HubStarted)
    assert sum(isinstance(event, events.HubStarted) for event in after) == 2
    assert status.trials == TRIALS
    good = [
        event.candidate
        for event in after
        if isinstance(event, events.Measured) and event.latencies and "/t" in event.candidate
    ]
    assert len(set(good)) + status.failed_trials == TRIALS
    check_costs(after, status)


def check_costs(journal: list[events.Event], status: JobStatus) -> None:
    """The hub's death has neither lost nor doubled what was spent."""
    measured = [event for event in journal if isinstance(event, events.Measured)]
    on_device = {(event.device, event.epoch, event.candidate): event.device_time_s for event in measured}
    computed = [event.cpu_s for event in journal if isinstance(event, events.Answer)]
    assert sum(cost.trials for cost in status.costs) == TRIALS
    assert sum(cost.device_s for cost in status.costs) == pytest.approx(sum(on_device.values()))
    assert sum(cost.cpu_s for cost in status.costs) == pytest.approx(sum(computed))
    spent = {cost.outcome: cost for cost in status.costs}
    assert spent["search"].cpu_s > 0.0
    assert spent["measured"].cpu_s > 0.0
    assert spent["model"].device_s > 0.0


async def under_way(client: Client, job: str) -> None:
    """Wait until a job's first results are in, and more are to come."""
    async for status in client.follow(job):
        assert not status.state.ended, status.failure
        if status.untuned is not None and any(task.best for task in status.tasks):
            return
    pytest.fail("the job is not told of any more")


async def test_a_hub_whose_state_is_in_use_says_so(tmp_path: Path) -> None:
    where = Site(tmp_path, "embedded", f"mqtt://127.0.0.1:{free_port()}")
    hub = await where.start_hub()
    try:
        await hub.logged("state in")
        second = await Site(tmp_path, "embedded", f"mqtt://127.0.0.1:{free_port()}").start_hub()
        assert await asyncio.wait_for(second.process.wait(), LONG_S) == 2
        await second.end(signal.SIGINT)
        assert "in use by another hub" in second.log
        assert "Traceback" not in second.log
    finally:
        code = await hub.end(signal.SIGTERM)
    assert code == 0, hub.log
