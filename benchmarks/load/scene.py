"""Broker, hub and simulated agents as processes of their own, and what can be asked of them."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleets import await_port, free_port
from operators import convolution

from load.gauges import Taken, Teller, taken
from resonator.client import Client
from resonator.jobspec import TuningJob, validate
from resonator_hub.authority import mosquitto

HERE = Path(__file__).parent.parent
PATIENCE_S = 300.0
TRIALS = 24
"""How many trials a task may have: a first round has half of them, more would take longer to be built."""
Told = dict[str, Any]


@dataclass(frozen=True)
class Load:
    """How many agents, how many jobs of how many tasks keep them busy, and for how long that is watched.

    A round of a task stays on one box, so that no more boxes are busy than there are tasks in all. `kernel_s`
    is how long a kernel takes at least and at most.
    """

    agents: int = 2000
    jobs: int = 25
    tasks: int = 40
    kernel_s: tuple[float, float] = (5.0, 14.0)
    warm_s: float = 60.0
    steady_s: float = 60.0


class Scene:
    """Everything that runs; `close` ends it."""

    def __init__(self, folder: Path, load: Load, broker: str) -> None:
        self.load = load
        self.folder = folder
        self._port = free_port()
        self.url = f"mqtt://127.0.0.1:{self._port}"
        self._program = broker
        self._config = folder / mosquitto.CONFIG
        (folder / mosquitto.DATA).mkdir()
        self._config.write_text(self._configuration())
        self._results = folder / "results"
        self.start_broker()
        self.hub = self._teller("load.hub", self.url, str(folder / "hub"), str(load.tasks))
        self.hub.wait(lambda told: told["connected_at"] > 0, PATIENCE_S)
        self._agents: Teller | None = None

    def start_broker(self) -> None:
        """Start Mosquitto, with what it has kept on disk."""
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.broker = subprocess.Popen([self._program, "-c", str(self._config)], stderr=log)
        await_port(self._port)

    def start_agents(self) -> None:
        """Start all agents at once."""
        load = self.load
        options = ["127.0.0.1", self._port, load.agents, *load.kernel_s, self._results]
        self._agents = self._teller("load.fleet", *map(str, options))
        self._agents.wait(bool, PATIENCE_S)

    @property
    def agents(self) -> Teller:
        """The process of the agents."""
        assert self._agents is not None, "the agents were started"
        return self._agents

    def told(self) -> Told:
        """Return what the agents tell next."""
        return self.agents.next()

    def forget_waits(self) -> None:
        """Have the agents begin anew to note how long they wait."""
        self.agents.process.send_signal(signal.SIGUSR1)

    def wait(self, fulfilled: Callable[[Told, Told], bool], patience_s: float = PATIENCE_S) -> None:
        """Wait until what hub and agents tell fulfils a condition; raises TimeoutError."""
        deadline = time.monotonic() + patience_s
        while not fulfilled(hub := self.hub.next(), agents := self.told()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"hub: {hub}, agents: {agents}")

    def measured(self) -> Counter[str]:
        """End the agents, and return what each box has measured, as `device epoch candidate`."""
        self.agents.end()
        return Counter(self._results.read_text().splitlines())

    def journalled(self) -> Counter[str]:
        """Return what the hub has counted, spelled alike."""
        with contextlib.closing(sqlite3.connect(self.folder / "hub/hub.db")) as database:
            rows = database.execute("SELECT body FROM events WHERE name = 'Measured'").fetchall()
        bodies = [json.loads(body) for (body,) in rows]
        return Counter(f"{body['device']} {body['epoch']} {body['candidate']}" for body in bodies)

    def kept_bytes(self) -> tuple[int, int]:
        """Return the bytes of the hub's database and of its blobs."""
        hub = self.folder / "hub"
        blobs = [file.stat().st_size for file in (hub / "blobs").rglob("*") if file.is_file()]
        return (hub / "hub.db").stat().st_size, sum(blobs)

    def taken(self) -> dict[str, Taken]:
        """Return what each process has taken so far."""
        processes = {"hub": self.hub.process, "Mosquitto": self.broker, "agents": self.agents.process}
        return {name: taken(process.pid) for name, process in processes.items()}

    def close(self) -> None:
        """End what still runs."""
        for teller in (self._agents, self.hub):
            if teller is not None:
                teller.close()
        self.broker.kill()
        self.broker.wait()

    def _configuration(self) -> str:
        """Return what `resonator broker config` writes, but for who is let in: that is not measured here."""
        listener = mosquitto.listener(self.folder, "127.0.0.1", self._port, "root")
        return f"{listener}allow_anonymous true\nlog_dest stderr\n{mosquitto.keeping(self.folder)}"

    def _teller(self, module: str, *options: str) -> Teller:
        return Teller([sys.executable, "-m", module, *options], HERE, self.folder / f"{module}.log")


@contextlib.contextmanager
def open_scene(load: Load, broker: str = "/usr/sbin/mosquitto") -> Iterator[Scene]:
    """Start broker and hub; all ends with the block."""
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        scene = Scene(Path(folder), load, broker)
        try:
            yield scene
        finally:
            scene.close()


async def submit(scene: Scene) -> None:
    """Submit all jobs, each with a model of its own."""
    import onnx

    async with Client.connect(scene.url) as client:
        await client.wait_for_hub(PATIENCE_S)
        for number in range(scene.load.jobs):
            model = onnx.load_from_string(convolution(8, 8, 1, pixels=4))
            model.doc_string = f"model {number}"
            path = scene.folder / f"{number}.onnx"
            path.write_bytes(model.SerializeToString())
            await client.submit(_job(number, TRIALS * scene.load.tasks), path)


async def cancel_all(scene: Scene) -> None:
    """End all jobs."""
    async with Client.connect(scene.url) as client:
        for status in await client.jobs():
            await client.cancel(status.job)


def _job(number: int, trials: int) -> TuningJob:
    spec = {"model": {"onnx": "model.onnx"}, "target": {"kind": "cpu"}, "budget": {"trials": trials}}
    return validate({"metadata": {"name": f"load-{number}"}, "spec": spec})
