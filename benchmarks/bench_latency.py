"""Trials a minute behind a round trip of 50 ms, against none: Resonator's bus and TVM's RPC, by one proxy.

Three comparisons, each with and without the proxy in turns: kernels that were built before, so that only the
device is waited for; a whole job, with its search and its builds; TVM's RPC runner on the same kernels.
QUICK=1 makes one pair of the first and the last.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import fleets
import mixed_kernels
from figures import Figure, keep, quick
from kernel_set import Built, pack
from operators import model
from proxy import delayed

from resonator_hub.database import Database
from resonator_hub.journal import JOURNAL, Journal
from resonator_hub.scheduler.events import Measured

HERE = Path(__file__).parent
DELAY_MS = 25.0
NEAR, FAR = "127.0.0.1", "127.0.0.2"
PAIRS = 1 if quick() else 3
KERNELS = 16
TRIALS = 128 if quick() else 256
JOB_TRIALS = 64
MEASURE = {"number": 3, "repeat": 1, "min_repeat_ms": 100}
"""As `peer_runners` measures."""


@dataclass(frozen=True)
class Run:
    """Trials a minute, and the share of the time in which the device measured."""

    pace: float
    busy: float | None = None


def main() -> None:
    fleets.need_two_cores()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kernels = folder / "kernels"
        kernels.mkdir()
        mixed_kernels.make(kernels, KERNELS)
        figures = compare("prebuilt kernels", lambda far: run_prebuilt(kernels, far), goal=0.95)
        if not quick():
            figures += compare("a whole job", run_job, goal=0.95)
        figures += compare("TVM's RPC runner", lambda far: run_tvm(kernels, far))
    keep("latency", figures)


def compare(what: str, run: Callable[[bool], Run], goal: float | None = None) -> list[Figure]:
    """Run near and far in turns; return the paces, the device's shares, and the ratio of the medians."""
    runs: dict[bool, list[Run]] = {False: [], True: []}
    for _ in range(PAIRS):
        for far in (False, True):
            runs[far].append(run(far))
            where = "behind 50 ms" if far else "at hand"
            print(f"{what}, {where}: {runs[far][-1]}", flush=True)
    pace = {far: statistics.median(one.pace for one in runs[far]) for far in runs}
    figures = []
    for far, where in ((False, "no latency"), (True, "50 ms round trip")):
        figures.append(Figure(f"{what}, {where}", pace[far], "trials/min"))
        if busy := [one.busy for one in runs[far] if one.busy is not None]:
            share = statistics.median(busy)
            figures.append(Figure(f"{what}, {where}: device measuring", share, "of the time"))
    ratio = pace[True] / pace[False]
    return [*figures, Figure(f"{what}, 50 ms round trip / none", ratio, "x", goal, more_is_better=True)]


# --- Resonator ------------------------------------------------------------------------------------------


def run_prebuilt(kernels: Path, far: bool) -> Run:
    """Measure prebuilt kernels: select, build and update take no time."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, port = Path(temporary), fleets.free_port()
        hub = [sys.executable, str(HERE / "prebuilt_hub.py"), str(kernels), f"{folder}/hub", str(port)]
        with fleets.running(fleets.on(fleets.HUB_CORE, hub)):
            fleets.await_port(port)
            measure(folder, port, mixed_kernels.model(), TRIALS, far)
        return read(folder / "hub")


def run_job(far: bool) -> Run:
    """Tune an operator, cheap enough to build that the device has much of the work."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with fleets.hub(folder) as broker:
            measure(folder, int(broker.rpartition(":")[2]), model("conv1x1"), JOB_TRIALS, far)
        return read(folder / "hub")


def measure(folder: Path, port: int, onnx: bytes, trials: int, far: bool) -> None:
    """Run one job on an agent that is `far` from the broker at `port`, or near; wait for its end."""
    near = f"mqtt://{NEAR}:{port}"
    with ExitStack() as stack:
        broker = near
        if far:
            middle = fleets.free_port()
            stack.enter_context(delayed((NEAR, middle), (NEAR, port), DELAY_MS))
            broker = f"mqtt://{NEAR}:{middle}"
        stack.enter_context(fleets.agent(folder, broker))
        fleets.await_idle(near)
        fleets.tune(folder, near, onnx, trials, MEASURE)


def read(state: Path) -> Run:
    """Read from a hub's journal how fast the kernels of its only job were measured."""
    database = Database.read(state / JOURNAL)
    events = [event for event in Journal(database).events() if isinstance(event, Measured)]
    database.close()
    # What was disturbed is measured again, and no trial.
    kernels = [event for event in events if "/t" in event.candidate and event.failure is None]
    # Results are noted when they come in: the first one's measurement lies before the time in question.
    took_s = kernels[-1].at - kernels[0].at
    busy_s = sum(event.device_time_s for event in kernels[1:])
    return Run(pace=(len(kernels) - 1) / took_s * 60, busy=busy_s / took_s)


# --- TVM ------------------------------------------------------------------------------------------------


def run_tvm(kernels: Path, far: bool) -> Run:
    """Measure the same kernels by TVM's RPC runner; the proxy stands before the server, not the tracker."""
    server = fleets.free_port()
    with ExitStack() as stack:
        if far:
            # The tracker passes on an address, but the server's own port: the proxy has another address.
            stack.enter_context(delayed((FAR, server), (NEAR, server), DELAY_MS))
        tracker = stack.enter_context(fleets.fleet_of_tvm(server=server, seen_at=FAR if far else NEAR))
        command = [sys.executable, str(HERE / "peer_runners.py"), "rpc", str(tracker)]
        built = mixed_kernels.read(kernels).kernels
        given = pack(
            [
                Built(
                    operator="conv1x1",
                    library="",
                    archive=str(kernels / f"{number}.tar"),
                    arguments=[(list(spec.shape), spec.dtype) for spec in kernel.arguments],
                )
                for number, kernel in enumerate(built)
            ]
        )
        done = subprocess.run(
            fleets.on(fleets.HUB_CORE, command), input=given.encode(), stdout=subprocess.PIPE, check=True
        )
        answer = json.loads(done.stdout.splitlines()[-1])
        assert None not in answer["latencies"], "TVM's runner failed on a kernel, see above"
        return Run(pace=len(built) / answer["seconds"] * 60)


if __name__ == "__main__":
    main()
