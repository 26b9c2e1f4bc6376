"""`make soak`: run a town in a storm, and check the four guarantees once it has come to rest.

    python -m soak [--minutes 30] [--seed 1] [--out FILE] [--database sqlite|postgres]

Exit code 0 when every guarantee held, 1 with the story when one did not. It needs Linux, root, Mosquitto, and
for `--database postgres` PostgreSQL. All processes, mounts and networks are in namespaces that end with it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

from fakes.guarantees import breaches, unfetchable
from resonator.bus.mqtt import MqttBus
from resonator.cli import logs
from resonator.errors import ResonatorError
from soak.plan import Storm, plan
from soak.report import Figures, count, count_faults, takeovers
from soak.tap import Tap
from soak.town import Town, town
from soak.traffic import Traffic

REST_S = 600.0
"""Within how long everything must have come to rest once the faults have stopped."""
LOOK_S = 2.0
_ALONE = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
_INSIDE = "RESONATOR_SOAK_INSIDE"


async def soak(options: argparse.Namespace, folder: Path) -> Figures:
    """Run a soak and return its figures, with the breaches among them."""
    figures = Figures(options.minutes, options.seed, options.database == "postgres")
    async with town(folder, shared=figures.shared) as running, tapping(running) as tap:
        traffic, storm = Traffic(running, random.Random(options.seed)), Storm(running)
        submitting = asyncio.create_task(traffic.run())
        storming = asyncio.create_task(storm.run(plan(running, options.minutes, options.seed)))
        await asyncio.wait({submitting, storming}, timeout=options.minutes * 60)
        for task in (submitting, storming):
            task.cancel()
        found = [f"the soak itself failed: {error!r}" for error in await _ended(submitting, storming)]
        print(f"{time.strftime('%H:%M:%S')}  no more faults", flush=True)
        await storm.calm()
        calm_at = time.monotonic()
        found += await rest(running, traffic)
        figures.rest_s = time.monotonic() - calm_at
        found += await fetched(running, figures)
        for service in running.boxes.values():
            await service.end(30.0)
        evidence = running.evidence()
        figures.breaches = [*found, *storm.failures, *breaches(evidence), *tap.breaches(evidence.books)]
        figures.refusals = dict(traffic.refusals)
        figures.results_delivered, figures.repeats_delivered = len(tap.delivered), tap.repeats
        count(figures, evidence)
        count_faults(figures, storm.faults, running.deaths, evidence)
        figures.takeovers_s = takeovers(storm.faults, running.leads())
        if figures.breaches:
            tell(running, folder.parent / f"{folder.name}-story")
    return figures


def tell(running: Town, place: Path) -> None:
    """Keep what everybody has logged, for whoever wants to know how it came to this."""
    place.mkdir()
    for service in running.services:
        for number, life in enumerate(service.lives, 1):
            name = service.name.replace("/", "-")
            (place / f"{name}-{number}.log").write_text(life.log)
    print(f"what everybody has logged is in {place}", flush=True)


async def rest(running: Town, traffic: Traffic) -> list[str]:
    """Wait until jobs have ended, results are taken and boxes idle; return what is left at the end."""
    give_up = time.monotonic() + REST_S
    while time.monotonic() < give_up:
        idle = await traffic.idle_boxes()
        if await traffic.look() and traffic.live == running.waiting() == 0 and idle == len(running.boxes):
            return []
        await asyncio.sleep(LOOK_S)
    left = f"{traffic.live} jobs are under way, {running.waiting()} results not taken, {idle} boxes idle"
    return [f"after {REST_S:g} s of rest {left}"]


async def fetched(running: Town, figures: Figures) -> list[str]:
    """Fetch every bundle that was announced."""
    books = running.evidence().books
    folder = running.folder / "bundles"
    folder.mkdir()
    try:
        async with running.fed.client() as client:
            found = await unfetchable(client, books, folder)
    except ResonatorError as error:
        found = [f"bundles could not be fetched: {error}"]
    figures.bundles_fetched = len(list(folder.iterdir()))
    return found


@contextlib.asynccontextmanager
async def tapping(running: Town) -> AsyncIterator[Tap]:
    """Listen at the cloud's broker for the length of a block."""
    bus = MqttBus(running.fed.cloud.outer_url)
    tap = Tap(bus)
    await tap.subscribe()
    async with bus:
        hearing = asyncio.create_task(tap.peer.serve())
        try:
            yield tap
        finally:
            hearing.cancel()
            await asyncio.wait({hearing})


async def _ended(*tasks: asyncio.Task[None]) -> list[BaseException]:
    await asyncio.wait(tasks)
    return [error for task in tasks if not task.cancelled() and (error := task.exception())]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 10_000)
    parser.add_argument("--out", type=Path, help="where to write the figures, as JSON")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="postgres")
    return parser.parse_args()


def main() -> int:
    options = parse()
    if _INSIDE in os.environ:
        return inside(options, Path(os.environ[_INSIDE]))
    # Whatever becomes of these processes, their namespaces end with the first, and all that is in them.
    command = [*_ALONE, sys.executable, "-m", "soak", *sys.argv[1:], "--seed", str(options.seed)]
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        return subprocess.run(command, env={**os.environ, _INSIDE: folder}, check=False).returncode


def inside(options: argparse.Namespace, folder: Path) -> int:
    """Run the soak in the namespaces that were made for it."""
    logs.configure("error")  # what the clients in here see of the storm is not news
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    Path("/run/netns").mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run/netns"], check=True)  # names of networks are ours
    print(f"soak of {options.minutes:g} minutes, seed {options.seed}, on {options.database}", flush=True)
    figures = asyncio.run(soak(options, folder))
    print(figures.table())
    if options.out:
        options.out.write_text(json.dumps(asdict(figures), indent=1) + "\n")
    if figures.breaches:
        print(f"\n{len(figures.breaches)} breaches of the guarantees:")
        print("\n".join(f"  {breach}" for breach in figures.breaches))
    return 1 if figures.breaches else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
