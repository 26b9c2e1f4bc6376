"""Trials a minute with mTLS and signatures, against none: all else the same, in turns.

The hub's kernels were built before, so that the device alone is waited for: whatever certificates and
signatures cost the hub, the broker and the agent is seen here before it is seen anywhere else. QUICK=1 makes
one pair.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import fleets
import mixed_kernels
from bench_flood import HERE, agent, as_ann, elsewhere, serve
from bench_latency import MEASURE, Run, read
from figures import Figure, keep, quick

sys.path.insert(0, str(HERE.parent / "tests"))
from fakes.brokers import find_mosquitto
from fakes.fleet_authority import Fleet

PAIRS = 1 if quick() else 5
KERNELS = 16
TRIALS = 128 if quick() else 384


def main() -> None:
    fleets.need_two_cores()
    runs: dict[bool, list[Run]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as temporary:
        kernels = Path(temporary)
        mixed_kernels.make(kernels, KERNELS)
        for _ in range(PAIRS):
            for trusted in (False, True):
                runs[trusted].append(run(kernels, trusted))
                print(f"{'mTLS and signatures' if trusted else 'neither'}: {runs[trusted][-1]}", flush=True)
    pace = {trusted: statistics.median(one.pace for one in runs[trusted]) for trusted in runs}
    ratio = statistics.median(
        with_.pace / without.pace for without, with_ in zip(runs[False], runs[True], strict=True)
    )
    keep(
        "trust",
        [
            Figure("without TLS and signatures", pace[False], "trials/min"),
            Figure("with mTLS and signatures", pace[True], "trials/min"),
            Figure("with / without, median of the pairs", ratio, "x", 0.97, more_is_better=True),
        ],
    )


def run(kernels: Path, trusted: bool) -> Run:
    """Run one job in a fleet with certificates, or without."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        fleet = Fleet(folder) if trusted else None
        with ExitStack() as stack:
            if fleet is None:
                broker = stack.enter_context(serve_openly(folder, kernels))
            else:
                broker = stack.enter_context(serve(folder, fleet, kernels))
            stack.enter_context(agent(folder, fleet, broker))
            fleets.tune(folder, broker, mixed_kernels.model(), TRIALS, MEASURE, options=as_ann(fleet))
        return read(folder / "hub")


@contextmanager
def serve_openly(folder: Path, kernels: Path) -> Iterator[str]:
    """Start a Mosquitto that lets everybody in, and a hub, on the hub's core; yields where they are."""
    port = fleets.free_port()
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n")
    broker = f"mqtt://127.0.0.1:{port}"
    hub = [sys.executable, str(HERE / "prebuilt_hub.py"), str(kernels), f"{folder}/hub", broker]
    with fleets.running(elsewhere([find_mosquitto(), "-c", str(config)])):
        fleets.await_port(port)
        with fleets.running(elsewhere(hub)):
            yield broker


if __name__ == "__main__":
    main()
