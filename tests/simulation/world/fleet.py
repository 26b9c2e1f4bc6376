"""One world: a fleet with its brokers, hub, boxes and users, from the first moment to the last."""

from __future__ import annotations

import asyncio
import gc
import itertools
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fakes.orders import spec
from resonator.jobspec import Budget
from resonator_hub.database import DatabaseLost, DatabaseUnusable
from resonator_hub.keeper import EVERY
from resonator_hub.namesake import NameTaken
from resonator_hub.rules import Rules
from simulation.world import disk, faults, hearing, patches, process
from simulation.world.box import Box
from simulation.world.chance import stream
from simulation.world.disk import Databases
from simulation.world.faults import Fault, Weather
from simulation.world.host import Host
from simulation.world.hub import SimulatedHub
from simulation.world.loop import VirtualLoop
from simulation.world.network import CLOUD, Network
from simulation.world.process import CURRENT, Killed
from simulation.world.user import User
from simulation.world.watch import Watch

ROUGH_S = 150.0
"""Until when faults begin."""
PATIENCE_S = 7200.0
"""How long after the last fault everything may take to be well."""
LOOK_S = 5.0
COLLECT_EVERY = 20
"""After how many worlds their remains are cleared away."""
KINDS = ("Small CPU", "Large CPU")
KEPT_BY = ("/dev/shm",)


@dataclass(frozen=True)
class Outcome:
    """What became of a world."""

    seed: int
    plan: tuple[Fault, ...]
    violations: tuple[str, ...]
    story: tuple[str, ...]
    digest: str
    lasted_s: float
    messages: int
    steps: int
    runs: int


@dataclass(frozen=True)
class Design:
    """What a fleet consists of, by its seed."""

    sites: tuple[str, ...]
    boxes: tuple[tuple[str, str, str], ...]
    """Site, name and kind of each."""
    jobs: tuple[tuple[str, str, int, float, float | None], ...]
    """User, broker, trials, when it is submitted, and how long after that canceled if it is, in seconds."""
    plan: tuple[Fault, ...]
    rules: Rules


def design(seed: int) -> Design:
    """Draw a fleet: one to three sites, one of them at the hub's own broker, and what goes wrong there."""
    chance = stream(seed, "design")
    places = [CLOUD, "north", "south", "east"][: chance.randint(1, 4)]
    if len(places) > 1 and chance.random() < 0.5:
        places.remove(CLOUD)
    boxes = tuple(
        (chance.choice(places), f"box{n}", KINDS[min(1, int(chance.random() * 1.3))])
        for n in range(chance.randint(2, 5))
    )
    jobs = tuple(
        (
            f"user{n}",
            chance.choice(places),
            chance.randint(4, 12),
            chance.uniform(4, 100),
            chance.uniform(0, 20) if chance.random() < 0.1 else None,
        )
        for n in range(chance.randint(1, 3))
    )
    names = [f"{site}.{name}" for site, name, _ in boxes]
    sites = tuple(place for place in places if place != CLOUD)
    plan = tuple(faults.draw(chance, names, sites, ROUGH_S))
    return Design(sites, boxes, jobs, plan, Rules("load_aware", 4, chance.choice([20.0, 60.0])))


class World:
    """Everything there is; `watch` judges it."""

    def __init__(self, seed: int, plan: Sequence[Fault] | None, loop: VirtualLoop, folder: Path) -> None:
        self.seed, self.loop = seed, loop
        self.watch = Watch()
        drawn = design(seed)
        self.weather = Weather(self, drawn.plan if plan is None else plan)
        self.databases = Databases()
        self.network = Network(seed, self.moment, self.watch.heard)
        self._serials = itertools.count(1)
        self._bridging: list[asyncio.Future[None]] = []
        for site in drawn.sites:
            self.network.add_site(site)
        self._folder, self._rules = folder, drawn.rules
        self.hub = SimulatedHub(self, "hub", "hub", folder / "hub", drawn.rules)
        self.boxes = {
            f"{site}.{name}": Box(self, site, name, kind, folder / site / name)
            for site, name, kind in drawn.boxes
        }
        self.users = [
            User(self, name, broker, spec(budget=Budget(trials=trials)), after_s, folder, cancel_after_s)
            for name, broker, trials, after_s, cancel_after_s in drawn.jobs
        ]
        self.hosts: dict[str, Host] = {"hub": self.hub.host}
        self.hosts |= {name: box.host for name, box in self.boxes.items()}
        self.watch.excused = lambda name: name in self.hosts and self.hosts[name].disk.troubled
        self._everybody = [*self.hosts.values(), *(user.host for user in self.users)]

    # --- its life -------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """Live until everything is well after all that went wrong, or patience ends."""
        for bridge in self.network.bridges.values():
            self._bridging.append(asyncio.ensure_future(bridge.run()))
        for host in self._everybody:
            host.boot()
        self.weather.begin()
        plan = self.weather.plan
        calm_at = max((fault.at + fault.for_s for fault in plan), default=0.0)
        last_at = max((fault.at for fault in plan), default=0.0)
        while self.loop.time() < calm_at + PATIENCE_S and not self.watch.violations:
            await asyncio.sleep(LOOK_S)
            if self.loop.time() > calm_at:
                self.weather.clear()
            if self.loop.time() > last_at and self._is_well():
                break
        if not self.watch.violations:
            self._settle()

    def _is_well(self) -> bool:
        return all(user.done for user in self.users) and not any(box.pending for box in self.boxes.values())

    def _settle(self) -> None:
        """Say what is not well at the end."""
        for user in self.users:
            if not user.done:
                self.watch.violated(f"{user.job} is not done, {PATIENCE_S:g} s after the last fault")
        for name, box in self.boxes.items():
            if box.pending:
                self.watch.violated(f"the outbox of {name} still holds {box.pending} messages")
        if self.watch.hubs == 1:
            self.watch.compare(self.hub.records())

    def end(self) -> None:
        """Take everything down."""
        for bridging in self._bridging:
            bridging.cancel()
        for host in self._everybody:
            host.retire()
            if host.process is not None:
                host.process.bury()

    # --- what its inhabitants tell ----------------------------------------------------------------------

    def serial(self) -> int:
        """Return the number of the next run of a kernel."""
        return next(self._serials)

    def moment(self, moment: str) -> None:
        """A process takes a step, which may be its last."""
        process = CURRENT.get()
        if process is None or not process.alive:
            return
        fault = self.weather.moment(process.name, moment)
        if fault is not None:
            self.watch.tell(f"FAULT {str(fault).strip()}")
            self.hosts[process.name].kill(fault.for_s)
            raise Killed

    def program_ended(self, host: Host, how: str, error: Exception | None) -> None:
        """A program has ended by itself."""
        self.watch.tell(f"{host.name} ends: {how}")
        of_design = isinstance(error, (DatabaseLost, DatabaseUnusable, NameTaken))
        expected = host.disk.troubled or not host.wanted or of_design
        if error is not None and not expected:
            self.watch.violated(f"{host.name} ends unexpectedly: {how}")
        elif how == "exit 4":
            self.watch.violated(f"{host.name} takes itself for another's double")

    def refused(self, user: str, job: str, why: str) -> None:
        """A user was told no."""
        self.watch.tell(f"{user} is refused: {why}")
        if job in self.watch.accepted and self.watch.hubs == 1:
            self.watch.violated(f"{job} was accepted, and now: {why}")

    # --- what the weather does --------------------------------------------------------------------------

    def begin_twin(self, *, same_name: bool) -> SimulatedHub:
        """Start another hub, which nobody wanted."""
        self.watch.hubs += 1
        host = f"hub{self.watch.hubs}"
        name = "hub" if same_name else host
        twin = SimulatedHub(self, host, name, self._folder / host, self._rules)
        self._everybody.append(twin.host)
        twin.host.boot()
        return twin

    def drain(self, name: str) -> None:
        """Have an agent end by SIGINT; it is started again, as after an update."""
        box = self.boxes[name]
        if box.alive and box.agent is not None and box.host.process is not None:
            self.loop.call_soon(box.agent.interrupt, context=box.host.process.context)

    def kill_profiler(self, name: str) -> None:
        """End the process that runs a kernel."""
        box = self.boxes[name]
        if box.alive and box.profiler is not None and box.host.process is not None:
            self.loop.call_soon(box.profiler.kill, context=box.host.process.context)


async def _life(world: World) -> None:
    try:
        await world.live()
    finally:
        world.end()


def run(seed: int, plan: Sequence[Fault] | None = None) -> Outcome:
    """Live through the world of a seed, with its own faults or with those of `plan`."""
    loop = VirtualLoop()
    folder = Path(tempfile.mkdtemp(prefix="fleet-", dir=next((d for d in KEPT_BY if Path(d).is_dir()), None)))
    gc.disable()  # what is collected, and when, must not make a difference
    _freeze()
    try:
        world = World(seed, plan, loop, folder)
        disk.use(world.databases)
        every = stream(seed, "snapshots").choice([10, 50, EVERY])
        clocks = patches.in_place(loop.time, stream(seed, "identifiers"), world.network.connection, every)
        with clocks, hearing.everything(world.watch, loop), process.silent_ends():
            loop.run_until_complete(_life(world))
            outcome = _outcome(world)
            del world
            if seed % COLLECT_EVERY == 0:
                gc.collect()
        return outcome
    finally:
        loop.close()
        gc.enable()
        shutil.rmtree(folder, ignore_errors=True)


@cache
def _freeze() -> None:
    """Spare the collector all that was there before the first world."""
    disk.engine()
    gc.collect()
    gc.freeze()


def _outcome(world: World) -> Outcome:
    watch = world.watch
    return Outcome(
        seed=world.seed,
        plan=tuple(world.weather.plan),
        violations=tuple(watch.violations),
        story=tuple(watch.story),
        digest=watch.digest,
        lasted_s=world.loop.time(),
        messages=watch.messages,
        steps=world.loop.steps,
        runs=watch.runs,
    )
