"""Two real hubs on one real PostgreSQL: one leads, and when it dies or is stopped the other one goes on."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import small_models
from fakes.brokers import mosquitto
from fakes.guarantees import Books, Evidence, breaches, read_books
from fakes.postgres import Postgres, postgres
from fakes.programs import LONG_S, Program, small_order
from fakes.stories import AgentLife, read
from resonator.cli.exits import ExitCode
from resonator.client.client import Client
from resonator.errors import BusUnreachable
from resonator.ids import DeviceId, JobId
from resonator.messages import JobState
from resonator_hub.database import Database
from resonator_hub.scheduler import events

TRIALS = 40
TAKEOVER_S = 10.0
BOX = DeviceId("local/box")


class Pair:
    """Two hubs that share a database and a folder of blobs, an agent, and their broker."""

    def __init__(self, folder: Path, server: Postgres, broker: str) -> None:
        self.folder, self.server, self.broker = folder, server, broker
        self.url = server.fresh()

    async def hub(self, name: str) -> Program:
        where = ["--broker", self.broker, "--database", self.url, "--blobs", str(self.folder / "blobs")]
        return await Program.start(
            self.folder, "hub", *where, "--state", str(self.folder / name), "--slots", "1"
        )

    async def agent(self) -> Program:
        where = ["--broker", self.broker, "--state", str(self.folder / "agent"), "--max-foreign-load", "1.0"]
        return await Program.start(self.folder, "agent", "--name", "box", "--json", *where)

    def books(self) -> Books:
        with contextlib.closing(Database.read(self.url)) as database:
            return read_books(database)


@asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[Pair]:
    with postgres() as server:
        async with mosquitto() as broker:
            yield Pair(folder, server, broker.url)


async def test_a_job_goes_on_when_its_hub_is_stopped_and_when_the_next_one_is_killed(tmp_path: Path) -> None:
    model = tmp_path / "small.onnx"
    model.write_bytes(small_models.perceptron())
    async with pair(tmp_path) as where:
        first = await where.hub("first")
        await first.logged("connected to broker")
        second = await where.hub("second")
        await second.logged("standing by")
        agent = await where.agent()
        try:
            async with Client.connect(where.broker) as client:
                job = await client.submit(small_order(TRIALS), model)
                done = await under_way(client, job, 1)
                await taken_over(first, signal.SIGSTOP, second)
                first.process.send_signal(signal.SIGCONT)
                await first.logged("does nothing any more")
                await first.logged("standing by")
                await asyncio.to_thread(where.server.restart)

                await under_way(client, job, done + 1)
                await taken_over(second, signal.SIGKILL, first, times=2)
                status = await asyncio.wait_for(client.wait(job), LONG_S)
                assert (status.state, status.trials) == (JobState.SUCCEEDED, TRIALS), status.failure
                await client.fetch(job, tmp_path / "small.tar")
        finally:
            first.process.send_signal(signal.SIGCONT)
            codes = [await program.end(signal.SIGINT) for program in (agent, first, second)]
        assert codes == [0, 0, -signal.SIGKILL], first.log
        assert first.log.count("connected to broker") == 2, "who is deposed does not throw the leader out"
        outbox = where.folder / "agent" / "outbox.sqlite"
        check(JobId(job), where.books(), AgentLife(BOX, 1, tuple(read(agent.log))), outbox)


async def taken_over(leader: Program, how: signal.Signals, standby: Program, times: int = 1) -> None:
    """End or stop a leader; the standby is at the broker, for the `times`-th time, soon enough."""
    began = time.monotonic()
    leader.process.send_signal(how)
    await standby.logged("connected to broker", times)
    assert time.monotonic() - began < TAKEOVER_S


def check(job: JobId, books: Books, agent: AgentLife, outbox: Path) -> None:
    """Three hubs have led, one at a time: nothing is lost or counted twice, and no windows overlap."""
    assert breaches(Evidence([job], books, [agent], {BOX: outbox})) == []
    assert sum(isinstance(event, events.HubStarted) for event in books.journal) == 3
    assert len({line.epoch for line in agent.lines if line.event == "measured"}) >= 3
    assert [event.at for event in books.journal] == sorted(event.at for event in books.journal)


async def under_way(client: Client, job: str, trials: int) -> int:
    """Wait until so many trials are done, and more are to come; return how many are."""
    async for status in client.follow(job):
        assert not status.state.ended, status
        if status.trials >= trials:
            return status.trials
    pytest.fail("the job is not told of any more")


@pytest.mark.nightly
async def test_a_hub_whose_database_stays_away_says_so_and_ends_to_be_started_again(tmp_path: Path) -> None:
    async with pair(tmp_path) as where:
        hub = await where.hub("only")
        await hub.logged("connected to broker")
        where.server.stop()
        agent = await where.agent()  # what it says of itself is to be journalled
        try:
            async with Client.connect(where.broker) as client:
                assert await asyncio.wait_for(hub.process.wait(), LONG_S) == ExitCode.UNREACHABLE
                with pytest.raises(BusUnreachable, match="local/main has gone offline"):
                    await client.wait_for_hub(5.0)
        finally:
            codes = [await program.end(signal.SIGINT) for program in (agent, hub)]
    assert codes == [0, ExitCode.UNREACHABLE]
    assert "waiting for the database" in hub.log
    assert "is not there" in hub.log
    assert "Traceback" not in hub.log


async def test_two_hubs_of_one_name_with_a_database_each_do_not_go_on_together(tmp_path: Path) -> None:
    async with mosquitto() as broker:
        hubs = []
        try:
            for name in ("first", "second"):
                where = ["--broker", broker.url, "--state", str(tmp_path / name), "--slots", "1"]
                hubs.append(await Program.start(tmp_path, "hub", *where))
                await hubs[-1].logged("connected to broker")
            first, second = hubs
            assert await asyncio.wait_for(second.process.wait(), LONG_S) == ExitCode.REFUSED
            assert first.log.count("connected to broker") == 1, "nobody was thrown out"
        finally:
            codes = [await hub.end(signal.SIGINT) for hub in hubs]
    assert codes == [0, ExitCode.REFUSED], first.log
    assert "another hub with a database of its own is called 'main' at this broker" in second.log
    assert "Traceback" not in second.log
