"""A fleet with certificates, from nothing to a bundle: real processes, a real Mosquitto, an enrolled box."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import small_models
from fakes.brokers import START_S, find_mosquitto, free_port
from fakes.programs import LONG_S, Program, small_order
from resonator import bundle
from resonator.client.client import Client
from resonator.errors import BusUnreachable
from resonator.messages import JobState

TRIALS = 8


class House:
    """A folder that is the home of all programs of this test."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ca = folder, folder / "ca"

    async def run(self, *arguments: str) -> str:
        """Run a command of the authority to its end and return what it said."""
        program = await Program.start(self.folder, *arguments, "--dir", str(self.ca))
        assert await asyncio.wait_for(program.process.wait(), LONG_S) == 0, program.log
        return program.log

    @contextlib.asynccontextmanager
    async def running(self, sign: str, *arguments: str) -> AsyncIterator[Program]:
        """Start a program, wait until it logs `sign`, and interrupt it afterwards."""
        program = await Program.start(self.folder, *arguments)
        await program.logged(sign)
        try:
            yield program
        finally:
            await program.end(signal.SIGINT)

    @contextlib.asynccontextmanager
    async def mosquitto(self, config: Path) -> AsyncIterator[None]:
        process = await asyncio.create_subprocess_exec(
            find_mosquitto(),
            "-c",
            str(config),
            "-v",
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert process.stderr is not None
        while b"running" not in await asyncio.wait_for(process.stderr.readline(), START_S):
            assert process.returncode is None
        drain = asyncio.ensure_future(process.stderr.read())
        try:
            yield
        finally:
            process.terminate()
            await process.wait()
            await drain


async def test_trust_a_fleet_tunes_a_model_with_mtls_signatures_and_a_box_that_enrolled(
    tmp_path: Path,
) -> None:
    find_mosquitto()
    house, port, door = House(tmp_path), free_port(), free_port()
    identities = house.ca / "identities" / "local"
    await house.run("ca", "init")
    await house.run("ca", "broker", "cloud", "--san", "127.0.0.1")
    await house.run("ca", "hub", "main")
    await house.run("ca", "user", "ann")
    await house.run("broker", "config", "cloud", "--host", "127.0.0.1", "--port", str(port))
    model, box, broker = tmp_path / "small.onnx", tmp_path / "box", f"mqtts://127.0.0.1:{port}"
    model.write_bytes(small_models.perceptron())
    token = await enrol_token(house)
    hub = ["hub", "--broker", broker, "--identity", str(identities / "hub/main"), "--slots", "1"]
    agent = ["agent", "--name", "box", "--broker", broker, "--identity", str(box)]
    async with (
        house.mosquitto(identities / "broker/cloud/mosquitto.conf"),
        house.running("connected to broker", *hub, "--state", str(tmp_path / "hub")),
    ):
        serve = ["ca", "serve", "--dir", str(house.ca), "--host", "127.0.0.1", "--port", str(door)]
        async with house.running("boxes are enrolled at", *serve):
            await enrolled(house, token, door, box)
        rest = ["--state", str(tmp_path / "agent"), "--max-foreign-load", "1.0"]
        async with (
            house.running("connected to broker", *agent, *rest) as running,
            Client.connect(broker, identity=identities / "client/ann") as ann,
        ):
            job = await ann.submit(small_order(TRIALS), model)
            status = await asyncio.wait_for(ann.wait(job), LONG_S)
            assert status.state is JobState.SUCCEEDED, status.failure
            assert status.trials == TRIALS
            await ann.fetch(job, tmp_path / "small.tar")
            assert "not signed" not in running.log
        await house.run("ca", "revoke", "ann")
        await house.run("broker", "config", "cloud", "--host", "127.0.0.1", "--port", str(port))
    assert bundle.read(tmp_path / "small.tar")[0].name == "small"
    async with house.mosquitto(identities / "broker/cloud/mosquitto.conf"):
        with pytest.raises(BusUnreachable):
            async with Client.connect(broker, timeout=2, identity=identities / "client/ann"):
                pytest.fail("a revoked user was let in")


async def enrol_token(house: House) -> str:
    """Return what `enroll-token` prints on stdout."""
    process = await asyncio.create_subprocess_exec(
        *Program.command("enroll-token", "--dir", str(house.ca)), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(process.communicate(), LONG_S)
    return said.decode().strip()


async def enrolled(house: House, token: str, door: int, box: Path) -> None:
    """Enrol the box, and see that the token is good for no other."""
    asked = ["agent", "enroll", "--token", token, "--hub", f"127.0.0.1:{door}"]
    first = await Program.start(house.folder, *asked, "--name", "box", "--identity", str(box))
    assert await asyncio.wait_for(first.process.wait(), LONG_S) == 0, first.log
    second = await Program.start(house.folder, *asked, "--name", "b2", "--identity", str(box) + "2")
    assert await asyncio.wait_for(second.process.wait(), LONG_S) == 4
    assert "the token has been used already" in second.log
