"""The program in docs/mqtt.md, run exactly as it is printed, by a Python that is not ours to prepare."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.hub import TalkingHub, talking_hub
from resonator.bus.url import parse_broker_url
from resonator.messages import JobState, JobSubmit
from resonator_hub.broker import EmbeddedBroker

PAGE = Path(__file__).parents[2] / "docs" / "mqtt.md"
MODEL = b"a model, as far as the bus is concerned"


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    broker = EmbeddedBroker()
    await broker.start()
    yield broker
    await broker.stop()


async def submit(broker: EmbeddedBroker, folder: Path) -> asyncio.subprocess.Process:
    program = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert program is not None
    (folder / "submit.py").write_text(program[1])
    (folder / "model.onnx").write_bytes(MODEL)
    address = parse_broker_url(broker.url)
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "submit.py", "model.onnx", address.host, str(address.port)),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 30)).decode().rstrip()


async def finish(hub: TalkingHub, state: JobState) -> None:
    request = hub.asked[0]
    assert isinstance(request, JobSubmit)
    status = hub.statuses[request.job]
    await hub.publish(status.model_copy(update={"state": state, "trials": 32}))


async def test_the_documented_program_submits_a_job_and_follows_it(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with talking_hub(broker.url) as hub:
        process = await submit(broker, tmp_path)
        first = {await line(process), await line(process)}
        request = hub.asked[0]
        assert isinstance(request, JobSubmit)
        await finish(hub, JobState.SUCCEEDED)

        assert first == {f"accepted {request.job}", "queued 0 trials"}
        assert await line(process) == "succeeded 32 trials"
        assert await process.wait() == 0
        assert list(hub.blobs.values()) == [MODEL]
        assert (request.spec.spec.budget.trials, request.spec.spec.model.onnx) == (32, "model.onnx")


async def test_the_documented_program_says_why_it_was_rejected(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with talking_hub(broker.url) as hub:
        hub.reason = "this is no ONNX model"
        process = await submit(broker, tmp_path)

        _, said = await asyncio.wait_for(process.communicate(), 30)

        assert said.decode().rstrip() == "rejected: this is no ONNX model"
        assert process.returncode == 1
