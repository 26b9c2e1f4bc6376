"""Makespan of two tuning jobs of equal trials: Resonator against TVM's MetaSchedule over its RPC tracker.

Search and build have core 0, the device core 1, on both sides. QUICK=1 makes 32 trials a job instead of 64.
The peer tunes one job after the other: both at once on one core of the hub do not end (DESIGN section 10).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import Figure, keep, quick
from operators import OPERATORS, model

HERE = Path(__file__).parent
TRIALS = 32 if quick() else 64
HUB_CORE, DEVICE_CORE = "0", "1"
Curve = list[tuple[float, float]]
"""Seconds since the start, and the best latency in seconds until then."""


def main() -> None:
    if (os.cpu_count() or 1) < 2:
        sys.exit("this comparison needs two cores: one for the hub, one for the device")
    peer_s, peer = run_peer()
    ours_s, ours, submitted = run_resonator()
    figures = [
        Figure(f"TVM over its RPC tracker: makespan of two jobs of {TRIALS} trials", peer_s, "s"),
        Figure(f"Resonator: makespan of two jobs of {TRIALS} trials, start-up included", ours_s, "s"),
        Figure(
            f"Resonator: makespan of two jobs of {TRIALS} trials from their submission",
            ours_s - submitted,
            "s",
        ),
    ]
    for name in OPERATORS:
        figures.append(Figure(f"{name}: best latency, TVM", peer[name][-1][1] * 1e6, "us"))
        figures.append(Figure(f"{name}: best latency, Resonator", ours[name] * 1e6, "us"))
    figures.append(Figure(f"makespan at {TRIALS} trials, Resonator / TVM", ours_s / peer_s, "x", goal=0.2))
    keep("makespan", figures)


def run_peer() -> tuple[float, dict[str, Curve]]:
    """Tune both operators, one after the other; return the seconds it took and the curves."""
    began = time.monotonic()
    curves = {}
    with fleet_of_tvm() as tracker:
        for name in OPERATORS:
            command = [sys.executable, "peer_tvm.py", name, str(TRIALS), target(), str(tracker), "1"]
            done = subprocess.run(on(HUB_CORE, command), stdout=subprocess.PIPE, check=True, cwd=HERE)
            curves[name] = json.loads(done.stdout.splitlines()[-1])
            print(f"TVM: {name} done {time.monotonic() - began:.0f} s after the start", flush=True)
    return time.monotonic() - began, curves


@contextmanager
def fleet_of_tvm() -> Iterator[int]:
    """Start TVM's tracker and one RPC server; yields the tracker's port."""
    tracker, server = free_port(), free_port()
    commands = {
        HUB_CORE: f"rpc_tracker --host 127.0.0.1 --port {tracker} --port-end {tracker + 1}",
        DEVICE_CORE: f"rpc_server --host 127.0.0.1 --port {server} --port-end {server + 9} "
        f"--tracker 127.0.0.1:{tracker} --key edge",
    }
    environment = {**os.environ, "TVM_NUM_THREADS": "1"}
    running = []
    for core, arguments in commands.items():
        command = on(core, [sys.executable, "-m", *f"tvm.exec.{arguments}".split()])
        running.append(subprocess.Popen(command, env=environment, start_new_session=True))
        await_port(tracker if core == HUB_CORE else server)
    try:
        yield tracker
    finally:
        for process in reversed(running):
            os.killpg(process.pid, 9)
            process.wait()


def run_resonator() -> tuple[float, dict[str, float], float]:
    """Tune both at once; return the seconds it took, the latencies, and when they were submitted."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, fleet_of_resonator(Path(folder)) as broker:
        submitted = time.monotonic() - began
        jobs = [submit(Path(folder), name, broker) for name in OPERATORS]
        latencies = {}
        for name, job in zip(OPERATORS, jobs, strict=True):
            last = json.loads(job.communicate()[0].splitlines()[-1])
            assert last["state"] == "succeeded", last
            latencies[name] = min(task["best"] for task in last["tasks"] if task["best"])
            print(f"Resonator: {name} done {time.monotonic() - began:.0f} s after the start", flush=True)
    return time.monotonic() - began, latencies, submitted


@contextmanager
def fleet_of_resonator(folder: Path) -> Iterator[str]:
    """Start a hub with its own broker and an agent; yields the broker's address."""
    port = free_port()
    broker = f"mqtt://127.0.0.1:{port}"
    hub = f"hub --broker embedded --port {port} --cores {HUB_CORE} --state {folder}/hub"
    agent = f"agent --name edge --broker {broker} --cpus {DEVICE_CORE} --state {folder}/edge"
    running = [subprocess.Popen(on(HUB_CORE, resonator(*hub.split())))]
    await_port(port)
    running.append(subprocess.Popen(resonator(*agent.split())))
    try:
        ask = on(HUB_CORE, resonator("devices", "--broker", broker))
        while b"idle" not in subprocess.run(ask, stdout=subprocess.PIPE).stdout:
            time.sleep(0.2)
        yield broker
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait()


def submit(folder: Path, name: str, broker: str) -> subprocess.Popen[bytes]:
    """Submit one operator and watch it."""
    path = folder / f"{name}.onnx"
    path.write_bytes(model(name))
    job = folder / f"{name}.yaml"
    job.write_text(
        json.dumps(
            {
                "metadata": {"name": name},
                "spec": {
                    "model": {"onnx": path.name},
                    "target": {"kind": "cpu"},
                    "budget": {"trials": TRIALS},
                    "measure": {"number": 3, "repeat": 1, "min_repeat_ms": 100},
                },
            }
        )
    )
    command = resonator("submit", str(job), "--broker", broker, "--wait", "--json")
    return subprocess.Popen(on(HUB_CORE, command), stdout=subprocess.PIPE)


def target() -> str:
    """Return this machine's TVM target with one core, as JSON."""
    probe = [sys.executable, "-m", "resonator_agent.tvm_probe"]
    facts = json.loads(subprocess.run(probe, stdout=subprocess.PIPE, check=True).stdout)
    return json.dumps({"kind": "llvm", "mcpu": facts["mcpu"], "num-cores": 1})


def resonator(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "resonator", *arguments]


def on(core: str, command: list[str]) -> list[str]:
    return ["taskset", "-c", core, *command]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_port(port: int) -> None:
    """Wait until something listens, at most two minutes."""
    for _ in range(1200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    sys.exit(f"nothing listens on port {port}")


if __name__ == "__main__":
    main()
