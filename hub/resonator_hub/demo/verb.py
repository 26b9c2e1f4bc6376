"""The verb: start hub and agents, tune the model, compare, draw, and leave nothing running."""

from __future__ import annotations

import asyncio
import contextlib
import json as jsonlib
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from resonator.cli import options
from resonator.cli.exits import outcome, say
from resonator.cli.live import show
from resonator.cli.output import check_folder, check_place, console, print_json
from resonator.client import Client
from resonator.client.order import name_for
from resonator.errors import BusUnreachable, InputInvalid, ResonatorError
from resonator.ids import JobId
from resonator.jobspec import TuningJob, validate
from resonator.messages import JobState, JobStatus
from resonator_hub import timeline
from resonator_hub.database import Database
from resonator_hub.demo.children import Children, free_port, pinned
from resonator_hub.demo.plan import TRIALS, Plan, default_model, plan, usable_cores
from resonator_hub.demo.report import Report, make_report, picture
from resonator_hub.demo.weights import with_weights
from resonator_hub.journal import JOURNAL, Journal

T = TypeVar("T")
SITE = "demo"
START_S = 120.0
"""How long the hub may take to come up: it loads TVM before it is online."""
FOREIGN_LOAD = 0.25
"""A demo goes on beside other programs; on a real box such measurements would be rejected."""
_LOOK_S = 0.25


def demo(
    trials: Annotated[int, typer.Option(min=1, help="Candidates to try over all tasks.")] = TRIALS,
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another ONNX model than the one that comes along.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the hub's state there, records and all.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="BUNDLE", help="Where the bundle goes.")
    ] = Path("resonator-demo/bundle.tar"),
    json: options.Json = False,
) -> None:
    """Tune a real model on this machine, end to end."""
    if model is not None and not model.is_file():
        raise InputInvalid(f"--model {model} is not a file")
    check_place(output)
    if output.suffix == ".svg":  # the drawing lies beside the bundle, under this suffix
        raise InputInvalid(f"-o {output} is not a name for a bundle; write one such as bundle.tar")
    if state is not None:
        check_folder(state)
    chosen = model or _prepare_model(output.parent)
    cores = plan(usable_cores())
    with _state(state) as folder, pinned(cores.hub):
        try:
            report = asyncio.run(Demo(chosen, trials, cores, folder, output, json=json).run())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
    if json:
        print_json(report.to_json())
    else:
        console().print(picture(report))
        say(f"the bundle is {report.bundle}, the run is drawn in {report.timeline}")


def _prepare_model(folder: Path) -> Path:
    path = folder / default_model().name
    path.write_bytes(with_weights(default_model()))
    return path


@contextlib.contextmanager
def _state(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="resonator-demo-") as folder:
        yield Path(folder)


class Demo:
    """One run of the demo."""

    def __init__(
        self, model: Path, trials: int, cores: Plan, state: Path, output: Path, *, json: bool
    ) -> None:
        self._model, self._trials, self._plan = model, trials, cores
        self._state, self._output, self._json = state, output, json
        self._logs = output.parent
        self._broker = f"mqtt://127.0.0.1:{free_port()}"
        self._began = time.monotonic()

    async def run(self) -> Report:
        """Tune, compare and draw; every process started here has ended when this returns or raises.

        Ctrl-C and SIGTERM cancel this, so that they strike where it awaits and nowhere else: once to
        stop the processes, once more to kill them.
        """
        running = asyncio.current_task()
        assert running is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
        async with Children(self._logs) as children:
            try:
                await self._start(children)
                status = await self._tune(children)
            except asyncio.CancelledError:
                say("interrupted: stopping the hub and its agents")
                raise
        if status.state is not JobState.SUCCEEDED:
            say(f"the job has {status.state.value}: {status.failure or ''}")
            raise typer.Exit(outcome(status.state))
        onnxruntime_s = await self._measure_onnxruntime()
        return self._conclude(status, onnxruntime_s)

    async def _start(self, children: Children) -> None:
        port = self._broker.rpartition(":")[2]
        hub_cores = ",".join(map(str, self._plan.hub))
        hub = ["hub", "--broker", "embedded", "--port", port, "--site", SITE, "--cores", hub_cores]
        await children.start("hub", [*hub, "--state", str(self._state / "hub")], self._plan.hub)
        both = sorted({*self._plan.hub, *self._plan.agents})
        for index, core in enumerate(self._plan.agents):
            name = self._plan.agent_name(index)
            agent = ["agent", "--name", name, "--broker", self._broker, "--site", SITE, "--cpus", str(core)]
            # Only its profiler is pinned to its core; the agent itself runs wherever there is room.
            accepted = 1.0 if core in self._plan.hub else FOREIGN_LOAD  # a lone core is the hub's as well
            agent += ["--max-foreign-load", str(accepted), "--state", str(self._state / name)]
            await children.start(name, agent, both)

    async def _tune(self, children: Children) -> JobStatus:
        say(
            f"hub on core {_listed(self._plan.hub)}, devices on core {_listed(self._plan.agents)}; "
            f"logs are in {self._logs}"
        )
        async with await self._connect(children) as client:
            await self._await_devices(client, children)
            job = await client.submit(self._job(), self._model)
            watching = asyncio.ensure_future(show(client, job, json=self._json))
            try:
                status = await _unless(children, watching)
            finally:
                watching.cancel()
            if status.state is JobState.SUCCEEDED:
                await client.fetch(job, self._output)
        return status

    async def _connect(self, children: Children) -> Client:
        """Wait until the hub's own broker listens, and make a client of it."""
        for _ in range(round(START_S / _LOOK_S)):
            children.check()
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", int(self._broker.rpartition(":")[2]))
                writer.close()
                return Client.connect(self._broker, SITE, timeout=30)
            await asyncio.sleep(_LOOK_S)
        raise BusUnreachable(f"the demo's broker is not there after {START_S:g} s; see {self._logs}/hub.log")

    async def _await_devices(self, client: Client, children: Children) -> None:
        """Wait for the hub and for every agent."""
        await _unless(children, asyncio.ensure_future(client.wait_for_hub(START_S)))
        for _ in range(round(START_S / _LOOK_S)):
            children.check()
            reports = await client.devices()
            if sum(report.state == "idle" for report in reports) == len(self._plan.agents):
                return
            await asyncio.sleep(_LOOK_S)
        raise BusUnreachable(f"the demo's agents are not there after {START_S:g} s; see {self._logs}")

    def _job(self) -> TuningJob:
        spec = {
            "model": {"onnx": self._model.name},
            "target": {"kind": "cpu"},
            "budget": {"trials": self._trials},
        }
        return validate({"metadata": {"name": name_for(self._model)}, "spec": spec})

    async def _measure_onnxruntime(self) -> float:
        """Measure the model in ONNX Runtime on one agent's core, now that all else is idle; seconds."""
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "resonator_hub.demo.yardstick",
                str(self._model),
                str(self._plan.agents[-1]),
            ),
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the demo alone
        )
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise ResonatorError(f"ONNX Runtime could not run {self._model} (exit code {process.returncode})")
        return float(jsonlib.loads(said)["median"])

    def _conclude(self, status: JobStatus, onnxruntime_s: float) -> Report:
        database = Database.read(self._state / "hub" / JOURNAL)
        spans = timeline.spans(Journal(database).events(), JobId(status.job))
        database.close()
        drawn = self._output.with_suffix(".svg")
        drawn.write_text(timeline.draw(spans, f"{self._model.stem}: {status.trials} trials"))
        return make_report(
            model=self._model,
            status=status,
            timeline=spans,
            cores=f"core {self._plan.agents[-1]}",
            onnxruntime_s=onnxruntime_s,
            wall_s=time.monotonic() - self._began,
            bundle=self._output,
            picture=drawn,
        )


async def _unless(children: Children, work: asyncio.Future[T]) -> T:
    """Wait for `work`, but no longer than the children live; raises ChildDied."""
    while not work.done():
        children.check()
        await asyncio.wait({work}, timeout=_LOOK_S)
    return work.result()


def _listed(cores: tuple[int, ...]) -> str:
    return ", ".join(map(str, cores))
