"""Trials a minute of a good device while somebody floods hub and broker with bad messages, against none.

A real Mosquitto with the configuration that `resonator broker config` writes, mTLS and signatures, a hub
whose kernels were built before, an agent, and a flooder that the fleet knows: 10,000 messages a second that
are not msgpack, not signed, signed wrongly, or signed well and meaningless; requests of a submitter; TLS
handshakes without a certificate; the first at an embedded broker without TLS. Flooded and calm in turns.
QUICK=1 runs the first kind alone.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import fleets
import mixed_kernels
from bench_latency import MEASURE, read
from figures import Figure, keep, quick

from resonator.trust import Party

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fakes.brokers import find_mosquitto
from fakes.fleet_authority import ANN, BOB, BOX, HUB, OTHER, Fleet

HERE = Path(__file__).parent
PAIRS = 1 if quick() else 3
KERNELS = 16
TRIALS = 256 if quick() else 384
RATE = 10_000


@dataclass(frozen=True)
class Flood:
    """Who floods with what, how often a second."""

    name: str
    kind: str
    qos: int = 0
    size: int = 200
    rate: int = RATE
    party: Party | None = OTHER


FLOODS = (
    Flood("not msgpack", "garbage"),
    Flood("not msgpack, QoS 1", "garbage", qos=1),
    Flood("not msgpack, 4 KB", "garbage", size=4096),
    Flood("not signed, QoS 1", "unsigned", qos=1),
    Flood("wrongly signed, QoS 1", "forged", qos=1),
    Flood("signed, of no meaning, QoS 1", "meaningless", qos=1),
    Flood("signed presence", "states", qos=1),
    Flood("requests of a submitter", "requests", qos=1, party=BOB),
    Flood("on no known topic", "stray"),
    Flood("handshakes without a certificate", "knocks"),
    Flood("embedded broker, not msgpack, QoS 1", "garbage", qos=1, party=None),
)


@dataclass(frozen=True)
class Run:
    """A good device's trials a minute; bad messages sent a second, and what the hub refused of them."""

    pace: float
    sent: float = 0.0
    refused: int = 0


def main() -> None:
    fleets.need_two_cores()
    wanted = sys.argv[1:]
    with tempfile.TemporaryDirectory() as temporary:
        kernels = Path(os.environ.get("KERNELS", temporary)) / "kernels"
        if not kernels.exists():
            kernels.mkdir()
            mixed_kernels.make(kernels, KERNELS)
        chosen = [one for one in FLOODS if f"{one.kind}{one.qos}" in wanted]
        chosen = chosen or list(FLOODS[:1] if quick() else FLOODS)
        outside = [one for one in chosen if one.party is not None]
        inside = [one for one in chosen if one.party is None]
        figures = compare("Mosquitto", kernels, outside) + compare("embedded broker", kernels, inside)
    if not wanted:
        keep("flood", figures)


def compare(broker: str, kernels: Path, floods: Sequence[Flood]) -> list[Figure]:
    """Run calm and under each flood in turns; return the paces, and their ratios to the calm one."""
    if not floods:
        return []
    calm, runs = [], {flood: [] for flood in floods}
    for _ in range(PAIRS):
        calm.append(run(kernels, floods[0], under=False))
        print(f"{broker}, calm: {calm[-1]}", flush=True)
        for flood in floods:
            runs[flood].append(run(kernels, flood, under=True))
            print(f"{flood.name}: {runs[flood][-1]}", flush=True)
    pace = statistics.median(one.pace for one in calm)
    ratios = [figure for flood in floods for figure in judge(flood, runs[flood], pace)]
    return [Figure(f"{broker}, calm", pace, "trials/min"), *ratios]


def judge(flood: Flood, runs: Sequence[Run], calm: float) -> list[Figure]:
    """Return a flood's pace, and its ratio to the calm one."""
    pace = statistics.median(one.pace for one in runs)
    sent = statistics.median(one.sent for one in runs)
    refused = statistics.median(one.refused for one in runs)
    note = f"{sent:.0f} a second were sent, {refused:.0f} in all refused by the hub"
    name = f"{flood.name}: flooded / calm"
    return [
        Figure(f"{flood.name}: flooded", pace, "trials/min"),
        Figure(name, pace / calm, "x", 0.9, more_is_better=True, note=note),
    ]


def run(kernels: Path, flood: Flood, *, under: bool) -> Run:
    """Run one job on a good device, under a flood or not."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with ExitStack() as stack:
            fleet = Fleet(folder) if flood.party else None
            broker = stack.enter_context(serve(folder, fleet, kernels))
            stack.enter_context(agent(folder, fleet, broker))
            flooding = stack.enter_context(flooded(fleet, broker, flood)) if under else None
            fleets.tune(folder, broker, mixed_kernels.model(), TRIALS, MEASURE, options=as_ann(fleet))
            sent, seconds = end(flooding) if flooding else (0, 1.0)
        refused = json.loads((folder / "hub/refused.json").read_text())
        return Run(read(folder / "hub").pace, sent / seconds, sum(refused.values()))


def elsewhere(command: list[str]) -> list[str]:
    """Return how to run what is not on the box: on the hub's core, where the box's agent has precedence.

    The agent shares that core here and none in a real fleet: who floods the hub takes no box's processor.
    """
    return fleets.on(fleets.HUB_CORE, ["chrt", "--idle", "0", *command])


@contextmanager
def serve(folder: Path, fleet: Fleet | None, kernels: Path) -> Iterator[str]:
    """Start broker and hub on the hub's core; yields where they are."""
    port = fleets.free_port()
    hub = [sys.executable, str(HERE / "prebuilt_hub.py"), str(kernels), f"{folder}/hub"]
    with ExitStack() as stack:
        if fleet is None:
            broker = f"mqtt://127.0.0.1:{port}"
            hub += [str(port)]
        else:
            broker = f"mqtts://127.0.0.1:{port}"
            mosquitto = [find_mosquitto(), "-c", str(fleet.configure(port))]
            stack.enter_context(fleets.running(elsewhere(mosquitto)))
            fleets.await_port(port)
            hub += [broker, str(fleet.place(HUB))]
        stack.enter_context(fleets.running(elsewhere(hub)))
        fleets.await_port(port)
        yield broker


@contextmanager
def agent(folder: Path, fleet: Fleet | None, broker: str) -> Iterator[None]:
    """Start the good device on the device's core, and wait until the hub knows of it."""
    options = f"--name {BOX.name} --broker {broker} --cpus {fleets.DEVICE_CORE} --state {folder}/box".split()
    if fleet is not None:
        options += ["--site", BOX.site, "--identity", str(fleet.place(BOX))]
    with fleets.running(fleets.resonator("agent", *options)):
        fleets.await_idle(broker, options=as_ann(fleet))
        yield


@contextmanager
def flooded(fleet: Fleet | None, broker: str, flood: Flood) -> Iterator[subprocess.Popen[str]]:
    """Flood until the end of the block, on the hub's core."""
    identity = "" if fleet is None or flood.party is None else str(fleet.place(flood.party))
    options = [broker, identity, flood.kind, *map(str, (flood.qos, flood.size, flood.rate, 0))]
    flooder = [sys.executable, str(HERE.parent / "tests/fakes/flooder.py"), *options]
    process = subprocess.Popen(elsewhere(flooder), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "flooding\n"
        yield process
    finally:
        process.kill()
        process.wait()


def end(flooding: subprocess.Popen[str]) -> tuple[int, float]:
    """Stop a flood; return how many messages were sent in how many seconds."""
    flooding.send_signal(signal.SIGTERM)
    said, _ = flooding.communicate()
    sent, seconds = json.loads(said)
    return int(sent), float(seconds)


def as_ann(fleet: Fleet | None) -> list[str]:
    """Return the options that say that a submitter of the fleet asks."""
    return [] if fleet is None else ["--site", ANN.site, "--identity", str(fleet.place(ANN))]


if __name__ == "__main__":
    main()
