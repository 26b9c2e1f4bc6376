"""Fleets to compare, started and stopped alike: TVM's tracker and RPC server, Resonator's hub and agent.

Search, build, broker, tracker and clients have the hub's core, `HUB_CORE`; the device has `DEVICE_CORE`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from resonator.client import Client

HUB_CORE, DEVICE_CORE = "0", "1"
PATIENCE_S = 120
KEY = "edge"
"""What TVM's server is asked for by, and the name of Resonator's agent."""


def need_two_cores() -> None:
    """Leave with a sentence where hub and device would have to share one core."""
    if (os.cpu_count() or 1) < 2:
        sys.exit("this comparison needs two cores: one for the hub, one for the device")


@contextmanager
def fleet_of_tvm(*, server: int | None = None, seen_at: str = "127.0.0.1") -> Iterator[int]:
    """Start TVM's tracker and one RPC server; yields the tracker's port.

    Clients are told to find the server at the address `seen_at`, on its own port `server`.
    """
    tracker, server = free_port(), server or free_port()
    commands = {
        HUB_CORE: f"rpc_tracker --host 127.0.0.1 --port {tracker} --port-end {tracker + 1}",
        DEVICE_CORE: f"rpc_server --host 127.0.0.1 --port {server} --port-end {server + 9} "
        f"--tracker 127.0.0.1:{tracker} --key {KEY} --custom-addr {seen_at}",
    }
    environment = {**os.environ, "TVM_NUM_THREADS": "1"}
    running = []
    try:
        for core, arguments in commands.items():
            command = on(core, [sys.executable, "-m", *f"tvm.exec.{arguments}".split()])
            running.append(subprocess.Popen(command, env=environment, start_new_session=True))
            await_port(tracker if core == HUB_CORE else server)
        yield tracker
    finally:
        for process in reversed(running):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def fleet_of_resonator(folder: Path, *, knobs: tuple[str, ...] = ()) -> Iterator[str]:
    """Start a hub with its own broker and one agent, both keeping their state under `folder`.

    `knobs` are further options of `resonator hub`. Yields the broker's address as soon as the agent is idle;
    the hub's database is `folder/hub/hub.db`.
    """
    with hub(folder, knobs=knobs) as broker, agent(folder, broker):
        await_idle(broker)
        yield broker


@contextmanager
def hub(folder: Path, *, knobs: tuple[str, ...] = ()) -> Iterator[str]:
    """Start a hub with its own broker on the hub's core; yields the broker's address."""
    port = free_port()
    options = f"--broker embedded --port {port} --cores {HUB_CORE} --state {folder}/hub".split()
    with running(on(HUB_CORE, resonator("hub", *options, *knobs))):
        await_port(port)
        yield f"mqtt://127.0.0.1:{port}"


@contextmanager
def agent(folder: Path, broker: str, name: str = KEY, cores: str = DEVICE_CORE) -> Iterator[None]:
    """Start an agent that measures on `cores`."""
    options = f"--name {name} --broker {broker} --cpus {cores} --state {folder}/{name}".split()
    with running(resonator("agent", *options)):
        yield


async def await_hub(broker: str) -> None:
    """Wait until a hub is online, at most two minutes: from then on jobs are taken in."""
    async with Client.connect(broker) as client:
        await client.wait_for_hub(PATIENCE_S)


def await_idle(broker: str, devices: int = 1, *, options: Sequence[str] = ()) -> None:
    """Wait until so many devices are idle, at most two minutes; `options` say who asks."""
    ask = on(HUB_CORE, resonator("devices", "--broker", broker, *options))
    deadline = time.monotonic() + PATIENCE_S
    while subprocess.run(ask, stdout=subprocess.PIPE).stdout.count(b"idle") < devices:
        if time.monotonic() > deadline:
            sys.exit(f"fewer than {devices} devices were idle within {PATIENCE_S} s")
        time.sleep(0.2)


def tune(
    folder: Path,
    broker: str,
    onnx: bytes,
    trials: int,
    measure: Mapping[str, object],
    *,
    options: Sequence[str] = (),
) -> None:
    """Submit a job and wait for its end, whatever that is; `options` say who asks."""
    (folder / "model.onnx").write_bytes(onnx)
    spec = {
        "model": {"onnx": "model.onnx"},
        "target": {"kind": "cpu"},
        "budget": {"trials": trials},
        "measure": measure,
    }
    job = folder / "job.yaml"
    job.write_text(json.dumps({"metadata": {"name": "benchmark"}, "spec": spec}))
    submit = resonator("submit", str(job), "--broker", broker, "--wait", "--json", *options)
    subprocess.run(on(HUB_CORE, submit), stdout=subprocess.DEVNULL, check=False)


@contextmanager
def running(command: list[str]) -> Iterator[None]:
    """Run a command until the block ends, then ask it to leave."""
    process = subprocess.Popen(command)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def target() -> str:
    """Return this machine's TVM target with one core, as JSON."""
    probe = [sys.executable, "-m", "resonator_agent.tvm_probe"]
    facts = json.loads(subprocess.run(probe, stdout=subprocess.PIPE, check=True).stdout)
    return json.dumps({"kind": "llvm", "mcpu": facts["mcpu"], "num-cores": 1})


def resonator(*arguments: str) -> list[str]:
    """Return the command line of a `resonator` verb."""
    return [sys.executable, "-m", "resonator", *arguments]


def on(core: str, command: list[str]) -> list[str]:
    """Return the command line that runs `command` on one core."""
    return ["taskset", "-c", core, *command]


def free_port() -> int:
    """Return a port of the loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_port(port: int) -> None:
    """Wait until something listens, at most two minutes."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    sys.exit(f"nothing listens on port {port}")
