"""A model that takes its worker down, in a real hub: its job fails and says why, another succeeds."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import numpy as np
from onnx import helper

import small_models
from fakes.brokers import free_port
from fakes.programs import LONG_S, Program, small_order
from resonator.client.client import Client
from resonator.failures import FailureKind
from resonator.messages import JobState

TRIALS = 4


def folding_bomb() -> bytes:
    """A model of 300 bytes; its constants, folded, take 16 TiB, which nobody sees before they are folded."""
    nodes = [
        helper.make_node("Mul", ["n", "n"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"]),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return small_models.model(nodes, {"x": [4]}, ["y"], {"n": np.array([2**21], np.int64)})


async def test_attack_by_a_model_that_takes_its_worker_down(tmp_path: Path) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    bomb, good = tmp_path / "bomb.onnx", tmp_path / "good.onnx"
    bomb.write_bytes(folding_bomb())
    good.write_bytes(small_models.perceptron())
    port = ["--port", url.rpartition(":")[2]]
    hub = await Program.start(tmp_path, "hub", *port, "--state", str(tmp_path / "hub"), "--slots", "1")
    await hub.logged("connected to broker")
    where = ["--broker", url, "--state", str(tmp_path / "agent"), "--max-foreign-load", "1.0"]
    agent = await Program.start(tmp_path, "agent", "--name", "box", *where)
    try:
        async with Client.connect(url) as mallory, Client.connect(url) as ann:
            bad = await mallory.submit(small_order(TRIALS), bomb)
            fine = await ann.submit(small_order(TRIALS), good)
            failed = await asyncio.wait_for(mallory.wait(bad), LONG_S)
            succeeded = await asyncio.wait_for(ann.wait(fine), LONG_S)
    finally:
        codes = [await program.end(signal.SIGINT) for program in (agent, hub)]
    assert failed.state is JobState.FAILED
    assert failed.failure is not None
    assert failed.failure.kind is FailureKind.STAGE_FAILED
    assert "extract did not finish: it ran out of memory" in failed.failure.detail
    assert succeeded.state is JobState.SUCCEEDED, succeeded.failure
    assert codes == [0, 0], hub.log
    assert "Traceback" not in hub.log
