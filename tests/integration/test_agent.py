"""A real agent process on a real broker, with a hub that follows a script."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fakes.brokers import Mosquitto, embedded, free_port, mosquitto
from fakes.kernels import build_add_one, build_c, push
from fakes.scripted_hub import LONG_S, NAME, SITE, ScriptedHub, scripted
from resonator.messages import (
    DeviceState,
    KernelResult,
    Status,
    Telemetry,
    WindowClose,
    WindowClosed,
    WindowOpened,
    WindowRefused,
)
from resonator_agent.outbox import Outbox
from resonator_hub.broker.faults import Faults


class AgentProcess:
    """`resonator agent` in a process of its own; what it logs is kept."""

    def __init__(self, process: asyncio.subprocess.Process):
        self.process = process
        self.log = ""
        self._reading = asyncio.ensure_future(self._read())
        self._line = asyncio.Condition()

    @property
    def pid(self) -> int:
        return self.process.pid

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            async with self._line:
                self.log += line.decode()
                self._line.notify_all()

    async def logged(self, text: str, count: int = 1) -> None:
        async with self._line:
            await asyncio.wait_for(self._line.wait_for(lambda: self.log.count(text) >= count), LONG_S)

    async def ended(self) -> int:
        code = await asyncio.wait_for(self.process.wait(), LONG_S)
        await self._reading
        return code

    def signal(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)


@asynccontextmanager
async def running_agent(url: str, state: Path, *options: str) -> AsyncIterator[AgentProcess]:
    command = ("agent", "--name", NAME, "--site", SITE, "--broker", url, "--state", str(state))
    config = state.with_suffix(".toml")
    config.touch()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from resonator.cli.main import main; main()",
        *command,
        "--cpus",
        "0",
        "--max-foreign-load",
        "1.0",
        *options,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "RESONATOR_CONFIG": str(config), "NO_COLOR": "1"},
    )
    agent = AgentProcess(process)
    try:
        yield agent
    finally:
        agent.signal(signal.SIGKILL)
        await agent.ended()
        print(agent.log)  # pytest shows it when the test has failed


@pytest.fixture
async def broker() -> AsyncIterator[Mosquitto]:
    async with mosquitto() as server:
        yield server


@pytest.fixture
async def hub(broker: Mosquitto, tmp_path: Path) -> AsyncIterator[ScriptedHub]:
    async with scripted(broker.url, tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def add_one(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build_add_one(tmp_path_factory.mktemp("add-one"))


def idle(state: DeviceState) -> bool:
    return state.status is Status.IDLE


async def open_window(hub: ScriptedHub, epoch: int) -> WindowOpened:
    await hub.wait(DeviceState, idle)
    await hub.grant(epoch)
    return await hub.wait(WindowOpened, lambda message: message.epoch == epoch)


async def test_a_window_from_grant_to_goodbye(
    broker: Mosquitto, hub: ScriptedHub, tmp_path: Path, add_one: bytes
) -> None:
    async with running_agent(broker.url, tmp_path / "state", "--label", "model=el300") as agent:
        state = await hub.wait(DeviceState, idle)
        assert state.identity is not None
        assert state.identity.labels == {"model": "el300"}
        assert state.identity.offers[0].kind == "cpu"

        opened = await open_window(hub, 1)
        assert opened.credit > 0
        pulled = push("job/t0/c0", add_one, inline=False)
        hub.store.put(add_one)
        await hub.say("kernel", pulled)
        await hub.say("kernel", push("job/t0/c1", build_c("crash", tmp_path)))
        await hub.say("kernel", push("job/t0/c2", add_one))

        first = await hub.wait(KernelResult, lambda result: result.candidate == "job/t0/c0")
        crashed = await hub.wait(KernelResult, lambda result: result.failure is not None)
        last = await hub.wait(KernelResult, lambda result: result.candidate == "job/t0/c2")
        assert first.latencies
        assert last.latencies
        assert crashed.candidate == "job/t0/c1"
        assert first.conditions.frequency_hz is None or first.conditions.frequency_hz > 1e8

        await hub.say("window", WindowClose(epoch=1))
        closed = await hub.wait(WindowClosed)
        assert (closed.reason, closed.measured) == ("asked", 3)
        agent.signal(signal.SIGINT)
        await hub.wait(DeviceState, lambda state: state.status is Status.OFFLINE)
        assert await agent.ended() == 0

    outbox = Outbox(tmp_path / "state" / "outbox.sqlite")
    assert [kept.subject for kept in outbox.pending() if kept.channel == "result"] == []
    outbox.close()


async def test_a_device_measures_on_while_its_results_and_blobs_are_under_way(
    tmp_path: Path, add_one: bytes
) -> None:
    kernels, delay_s = 20, 0.25
    async with embedded() as broker, scripted(broker.url, tmp_path) as hub:
        broker.faults = Faults(delay_s=(delay_s, delay_s))
        hub.acknowledges = False
        hub.store.put(add_one)
        async with running_agent(broker.url, tmp_path / "state"):
            await open_window(hub, 1)
            for number in range(kernels):
                await hub.say("kernel", push(f"job/t0/c{number}", add_one, inline=number % 2 == 0))
            await hub.wait(KernelResult)
            began = asyncio.get_running_loop().time()
            await hub.wait(KernelResult, count=kernels)
            took_s = asyncio.get_running_loop().time() - began

    results = [one.message for one in hub.heard if isinstance(one.message, KernelResult)]
    assert {result.candidate for result in results} == {f"job/t0/c{number}" for number in range(kernels)}
    assert all(result.latencies for result in results)
    # A way there or back for each of them alone would take this long.
    assert took_s < kernels * delay_s


async def test_a_repeated_push_is_measured_once_and_answered_again(
    broker: Mosquitto, hub: ScriptedHub, tmp_path: Path, add_one: bytes
) -> None:
    hub.acknowledges = False
    async with running_agent(broker.url, tmp_path / "state"):
        await open_window(hub, 1)
        for expected in (1, 2):
            await hub.say("kernel", push("job/t0/c0", add_one))
            await hub.wait(KernelResult, count=expected)

        assert len(set(hub.ids(KernelResult))) == 1


async def test_a_lower_epoch_is_refused_by_the_device(
    broker: Mosquitto, hub: ScriptedHub, tmp_path: Path
) -> None:
    async with running_agent(broker.url, tmp_path / "state"):
        await open_window(hub, 7)
        await hub.grant(6, job="usurper")

        refused = await hub.wait(WindowRefused)
        assert (refused.epoch, refused.highest) == (6, 7)


async def test_a_killed_agent_comes_back_with_its_results_and_its_epoch(
    broker: Mosquitto, hub: ScriptedHub, tmp_path: Path, add_one: bytes
) -> None:
    hub.acknowledges = False
    async with running_agent(broker.url, tmp_path / "state") as agent:
        await open_window(hub, 5)
        await hub.say("kernel", push("job/t0/c0", add_one, epoch=5))
        before = await hub.wait(KernelResult)
        agent.signal(signal.SIGKILL)
        await agent.ended()
    await hub.wait(DeviceState, lambda state: state.status is Status.OFFLINE)
    hub.heard.clear()
    hub.acknowledges = True

    async with running_agent(broker.url, tmp_path / "state"):
        assert await hub.wait(KernelResult) == before
        assert (await hub.wait(WindowClosed)).reason == "restarted"
        state = await hub.wait(DeviceState, idle)
        assert state.epoch == 5
        await hub.grant(5)
        assert (await hub.wait(WindowRefused)).highest == 5


async def test_systemd_is_told_how_the_box_fares_and_every_line_names_it(
    broker: Mosquitto, hub: ScriptedHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(LONG_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "600000")
        async with running_agent(broker.url, tmp_path / "state", "--json") as agent:
            await open_window(hub, 3)
            said = b""
            while b"READY=1" not in said or b"STATUS=window 3 for job job, 0 messages" not in said:
                said += await asyncio.to_thread(manager.recv, 1000)
            agent.signal(signal.SIGTERM)
            await agent.ended()
    assert b"WATCHDOG=1" in said
    lines = [json.loads(line) for line in agent.log.splitlines()]
    (opened,) = [line for line in lines if line["event"] == "window open"]
    assert (opened["device"], opened["job"], opened["epoch"]) == (f"{SITE}/{NAME}", "job", 3)


async def test_a_window_outlives_its_broker(
    broker: Mosquitto, hub: ScriptedHub, tmp_path: Path, add_one: bytes
) -> None:
    async with running_agent(broker.url, tmp_path / "state") as agent:
        await open_window(hub, 1)
        await broker.stop()
        await agent.logged("trying again in")
        hub.heard.clear()
        await broker.start()

        state = await hub.wait(DeviceState, lambda state: state.status is Status.RUNNING)
        assert state.epoch == 1
        await hub.bus.wait_connected(LONG_S)
        await hub.say("kernel", push("job/t0/c0", add_one))
        assert (await hub.wait(KernelResult)).failure is None


async def test_a_second_agent_of_the_same_name_is_refused(
    broker: Mosquitto, hub: ScriptedHub, tmp_path: Path
) -> None:
    async with running_agent(broker.url, tmp_path / "first") as holder:
        await hub.wait(DeviceState, idle)
        async with running_agent(broker.url, tmp_path / "second") as newcomer:
            assert await newcomer.ended() == 4
            assert "the name is taken by a living agent" in newcomer.log
        assert holder.process.returncode is None
        await hub.grant(1)
        await hub.wait(WindowOpened)


async def test_a_second_agent_on_the_same_state_is_refused(
    broker: Mosquitto, hub: ScriptedHub, tmp_path: Path
) -> None:
    async with running_agent(broker.url, tmp_path / "state"):
        await hub.wait(DeviceState, idle)
        async with running_agent(broker.url, tmp_path / "state") as second:
            assert await second.ended() == 2
            assert "another agent is using the state directory" in second.log


async def test_a_broker_that_is_not_there_is_a_sentence_and_a_retry(tmp_path: Path) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    async with running_agent(url, tmp_path / "state") as agent:
        await agent.logged("trying again in", count=2)
        assert "Traceback" not in agent.log
        agent.signal(signal.SIGTERM)
        assert await agent.ended() == 0


async def test_an_interrupt_gives_up_a_kernel_that_does_not_end(
    broker: Mosquitto, hub: ScriptedHub, tmp_path: Path
) -> None:
    async with running_agent(broker.url, tmp_path / "state") as agent:
        await open_window(hub, 1)
        await hub.say("kernel", push("job/t0/c0", build_c("endless", tmp_path)))
        await hub.wait(Telemetry, lambda telemetry: telemetry.candidate == "job/t0/c0")
        agent.signal(signal.SIGINT)
        await hub.wait(DeviceState, lambda state: state.status is Status.DRAINING)
        agent.signal(signal.SIGINT)

        assert (await hub.wait(WindowClosed)).reason == "drained"
        assert await agent.ended() == 130


async def test_an_idle_agent_is_light(broker: Mosquitto, hub: ScriptedHub, tmp_path: Path) -> None:
    async with running_agent(broker.url, tmp_path / "state") as agent:
        await hub.wait(DeviceState, idle)
        processes = [agent.pid, *_children(agent.pid)]

        assert len(processes) == 2, "the agent and its warm profiler"
        assert os.sched_getaffinity(processes[1]) == {0}
        assert os.sched_getaffinity(processes[0]) == (os.sched_getaffinity(0) - {0} or {0})
        assert sum(map(_resident, processes)) < 160 * 2**20


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
