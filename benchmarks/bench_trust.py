"""Trials a minute with mTLS and signatures, against none: all else the same, in turns.

First with kernels that were built before, so that the device alone is waited for: whatever certificates and
signatures cost the hub, the broker and the agent is seen there before it is seen anywhere else. Then a whole
job, with its search and its builds. QUICK=1 makes one pair of each.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import fleets
import mixed_kernels
from bench_flood import HERE, agent, as_ann, elsewhere
from bench_latency import JOB_TRIALS, MEASURE, Run, read
from figures import Figure, keep, quick
from operators import model

sys.path.insert(0, str(HERE.parent / "tests"))
from fakes.brokers import find_mosquitto
from fakes.fleet_authority import HUB, Fleet

PAIRS = 1 if quick() else 3
KERNELS = 16
TRIALS = 128 if quick() else 384


def main() -> None:
    fleets.need_two_cores()
    with tempfile.TemporaryDirectory() as temporary:
        kernels = Path(temporary)
        mixed_kernels.make(kernels, KERNELS)

        def prebuilt(folder: Path, broker: str, identity: list[str]) -> list[str]:
            return [
                sys.executable,
                str(HERE / "prebuilt_hub.py"),
                str(kernels),
                f"{folder}/hub",
                broker,
                *identity,
            ]

        figures = compare("prebuilt kernels", prebuilt, mixed_kernels.model(), TRIALS)
        figures += compare("a whole job", whole, model("conv1x1"), JOB_TRIALS)
    keep("trust", figures)


Hub = Callable[[Path, str, list[str]], list[str]]
"""Returns the command of a hub, by its folder, its broker, and the folder of its identity, if it has one."""


def whole(folder: Path, broker: str, identity: list[str]) -> list[str]:
    """Return the command of the hub as everybody runs it."""
    options = f"--broker {broker} --cores {fleets.HUB_CORE} --state {folder}/hub".split()
    who = ["--site", HUB.site, "--identity", *identity] if identity else []
    return fleets.resonator("hub", *options, *who)


def compare(what: str, hub: Hub, onnx: bytes, trials: int) -> list[Figure]:
    """Run a job with trust and without in turns; return the paces, and the median of the ratios."""
    runs: dict[bool, list[Run]] = {False: [], True: []}
    for _ in range(PAIRS):
        for trusted in (False, True):
            runs[trusted].append(run(hub, onnx, trials, trusted))
            how = "mTLS and signatures" if trusted else "neither"
            print(f"{what}, {how}: {runs[trusted][-1]}", flush=True)
    pace = {trusted: statistics.median(one.pace for one in runs[trusted]) for trusted in runs}
    pairs = zip(runs[False], runs[True], strict=True)
    ratio = statistics.median(with_.pace / without.pace for without, with_ in pairs)
    return [
        Figure(f"{what}: without TLS and signatures", pace[False], "trials/min"),
        Figure(f"{what}: with mTLS and signatures", pace[True], "trials/min"),
        Figure(f"{what}: with / without, median of the pairs", ratio, "x", 0.97, more_is_better=True),
    ]


def run(hub: Hub, onnx: bytes, trials: int, trusted: bool) -> Run:
    """Run one job in a fleet with certificates, or without."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, port = Path(temporary), fleets.free_port()
        fleet = Fleet(folder) if trusted else None
        broker = f"mqtt{'s' if trusted else ''}://127.0.0.1:{port}"
        identity = [] if fleet is None else [str(fleet.place(HUB))]
        with ExitStack() as stack:
            stack.enter_context(mosquitto(folder, fleet, port))
            stack.enter_context(fleets.running(elsewhere(hub(folder, broker, identity))))
            stack.enter_context(agent(folder, fleet, broker))
            fleets.tune(folder, broker, onnx, trials, MEASURE, options=as_ann(fleet))
        return read(folder / "hub")


@contextmanager
def mosquitto(folder: Path, fleet: Fleet | None, port: int) -> Iterator[None]:
    """Start a Mosquitto on the hub's core that lets the fleet in alone, or everybody where there is none."""
    if fleet is None:
        config = folder / "mosquitto.conf"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n")
    else:
        config = fleet.configure(port)
    with fleets.running(elsewhere([find_mosquitto(), "-c", str(config)])):
        fleets.await_port(port)
        yield


if __name__ == "__main__":
    main()
