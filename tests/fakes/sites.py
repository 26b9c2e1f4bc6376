"""A federation of real Mosquittos: one in the cloud, one at each site, and links that the test can break.

    async with federation(tmp_path) as fed:
        hub = await fed.start_hub("--slots", "1")
        box = await fed.start_agent("north", "box1")
        fed.sites["north"].link.cut()

Each broker, with the programs at its place, is in a network namespace of its own where that is allowed.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fakes.brokers import START_S, find_mosquitto
from fakes.link import Link
from fakes.network import Place, network
from fakes.programs import Program
from resonator.client.client import Client
from resonator_hub.authority import mosquitto
from resonator_hub.sites.verbs import sites as site_verbs

SITES = ("north", "east", "south")
KEEPALIVE_S = 5
"""The least that Mosquitto allows: a silent link is noticed within one and a half of it."""


class PlacedBroker:
    """A Mosquitto at a place, with a configuration that is there; it may be killed and started again."""

    def __init__(self, place: Place, config: Path, *, tls: bool = False) -> None:
        self.place, self.config = place, config
        self._scheme = "mqtts" if tls else "mqtt"
        self.log = ""
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._news = asyncio.Condition()

    @property
    def url(self) -> str:
        """Its address for programs at its place."""
        return f"{self._scheme}://{self.place.inside}:{self.place.port}"

    @property
    def outer_url(self) -> str:
        """Its address for the test itself, which has to say `insecure`."""
        return f"{self._scheme}://{self.place.outside}:{self.place.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, with what it has kept, and wait until it listens."""
        self.log = ""
        command = [*self.place.within, find_mosquitto(), "-c", str(self.config), "-v"]
        self._process = await asyncio.create_subprocess_exec(
            *command, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
        )
        self._reading = asyncio.create_task(self._read(self._process))
        await self.logged(" running")

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it by a signal; SIGKILL is the crash that loses what was not yet on disk."""
        if self._process is None or self._reading is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        await self._process.wait()
        await self._reading
        self._process = None

    async def logged(self, text: str, count: int = 1) -> None:
        """Wait until something was logged so many times since the start."""
        async with self._news:
            enough = self._news.wait_for(lambda: self.log.count(text) >= count or self._gone())
            await asyncio.wait_for(enough, START_S)
        assert self.log.count(text) >= count, f"the broker at {self.place.name} has ended:\n{self.log}"

    def _gone(self) -> bool:
        return self._reading is None or self._reading.done()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            async with self._news:
                self.log += line.decode(errors="replace")
                self._news.notify_all()


@dataclass(frozen=True)
class Site:
    """The broker of a site, and its link to the cloud."""

    name: str
    broker: PlacedBroker
    link: Link


class Federation:
    """A cloud, its sites, and the programs that the test has started there; they end with it."""

    def __init__(self, folder: Path, cloud: PlacedBroker, sites: dict[str, Site]) -> None:
        self.folder, self.cloud, self.sites = folder, cloud, sites
        self._programs: list[Program] = []

    @property
    def hub_state(self) -> Path:
        """The state directory of the hub called main."""
        return self.folder / "hub"

    def agent_state(self, site: str, name: str) -> Path:
        """The state directory of an agent."""
        return self.folder / "agents" / site / name

    async def start_hub(self, *options: str) -> Program:
        """Start a hub in the cloud, and wait until it has its broker."""
        broker = ["--broker", self.cloud.url, "--state", str(self.hub_state), "--json"]
        hub = await self._start(self.cloud, "hub", *broker, *options)
        await hub.logged("connected to broker")
        return hub

    async def start_agent(self, site: str, name: str, *options: str) -> Program:
        """Start an agent at a site, and wait until it has its broker."""
        where = ["--site", site, "--broker", self.sites[site].broker.url]
        state = ["--state", str(self.agent_state(site, name)), "--max-foreign-load", "1.0", "--json"]
        options = ("agent", "--name", name, *where, *state, *options)
        agent = await self._start(self.sites[site].broker, *options)
        await agent.logged("connected to broker")
        return agent

    def client(self, site: str | None = None, *, timeout: float = 10.0) -> Client:
        """A client of the test's own, in the cloud or at a site."""
        broker = self.cloud if site is None else self.sites[site].broker
        return Client.connect(broker.outer_url, site or "local", timeout=timeout, insecure=True)

    async def run(self, site: str, *arguments: str) -> Program:
        """Start a verb of `resonator` at a site, such as submit, with its options for that."""
        where = ["--site", site, "--broker", self.sites[site].broker.url]
        return await self._start(self.sites[site].broker, *arguments, *where)

    async def linked(self, site: str) -> None:
        """Wait until a site's bridge is connected once more since its broker started."""
        known = self.cloud.log.count(f"as {site}/broker/")
        await self.cloud.logged(f"as {site}/broker/", known + 1)

    async def _start(self, at: PlacedBroker, *arguments: str) -> Program:
        program = await Program.start(self.folder, *arguments, within=at.place.within)
        self._programs.append(program)
        return program

    async def close(self) -> None:
        """Kill what still runs, and print what all have logged: pytest shows it of a test that failed."""
        for program in self._programs:
            await program.end(signal.SIGKILL)
            print(program.log)


@contextlib.asynccontextmanager
async def federation(
    folder: Path, names: Sequence[str] = SITES, *, max_queued: int = 20_000
) -> AsyncIterator[Federation]:
    """A cloud broker and that of each site, bridged over a link of the test's, all running."""
    find_mosquitto()
    async with contextlib.AsyncExitStack() as stack:
        places = stack.enter_context(network("cloud", *names))
        cloud = PlacedBroker(places["cloud"], _cloud(folder / "cloud", places["cloud"]))
        stack.push_async_callback(cloud.end)
        await cloud.start()
        sites = {}
        for name in names:
            link = Link((cloud.place.outside, cloud.place.port), places[name].gateway)
            await stack.enter_async_context(link)
            config = _site(folder / name, name, places[name], link.url, max_queued)
            sites[name] = Site(name, PlacedBroker(places[name], config), link)
            stack.push_async_callback(sites[name].broker.end)
            await sites[name].broker.start()
            await cloud.logged(f"as {name}/broker/")
        made = Federation(folder, cloud, sites)
        stack.push_async_callback(made.close)
        yield made


def _cloud(folder: Path, place: Place) -> Path:
    (folder / mosquitto.DATA).mkdir(parents=True)
    config = folder / mosquitto.CONFIG
    listener = mosquitto.listener(folder, "0.0.0.0" if place.within else place.inside, place.port, getuser())
    config.write_text("\n".join((listener, "allow_anonymous true", mosquitto.keeping(folder, autosave_s=1))))
    return config


def _site(folder: Path, name: str, place: Place, cloud: str, max_queued: int) -> Path:
    """Write the configuration of a site's broker as an operator does."""
    where = ["--host", "0.0.0.0" if place.within else place.inside, "--port", str(place.port)]
    limits = ["--keepalive", str(KEEPALIVE_S), "--max-queued", str(max_queued)]
    options = ["config", name, "--cloud", cloud, "--out", str(folder), *where, *limits, "--insecure"]
    done = CliRunner().invoke(site_verbs, options, catch_exceptions=False)
    if done.exit_code:
        pytest.fail(f"resonator site {' '.join(options)}: {done.output}")
    return folder / mosquitto.CONFIG
