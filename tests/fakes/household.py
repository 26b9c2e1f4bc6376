"""A hub and its boxes at a broker, as processes that are killed, stopped and started again.

What every life of theirs logged is kept, to be held against what the hub has written down.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from fakes import guarantees
from fakes.guarantees import Books, Evidence
from fakes.programs import Program
from fakes.stories import AgentLife, read
from resonator.ids import DeviceId, JobId, device_id
from resonator.settings import DEFAULT_SITE
from resonator_hub.database import Database
from resonator_hub.journal import JOURNAL


class Member:
    """A process that lives several times; `lives` are its programs, the present or last one at the end."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.arguments = arguments
        self.lives: list[Program] = []

    @property
    def life(self) -> Program:
        return self.lives[-1]

    @property
    def pid(self) -> int:
        return self.life.process.pid

    @property
    def is_alive(self) -> bool:
        return bool(self.lives) and self.life.process.returncode is None

    async def start(self, *doom: str) -> Program:
        """Begin a new life, one that ends at a step if `doom` says so: POINT, before or after, NUMBER."""
        assert not self.is_alive
        self.lives.append(await Program.start(self.folder, *self.arguments, doom=doom))
        return self.life

    async def kill(self) -> None:
        """End the present life by kill -9."""
        assert await self.life.end(signal.SIGKILL) == -signal.SIGKILL

    async def doomed(self) -> None:
        """Wait until the present life has met its doom."""
        code = await self.life.ended()
        assert code == -signal.SIGKILL, f"it ended with {code}:\n{self.life.log[-4000:]}"

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the process (SIGSTOP) for the length of a block."""
        self.life.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.life.process.send_signal(signal.SIGCONT)

    async def end(self) -> int | None:
        """Ask the present life to end, and return its exit code; None if it does not live."""
        return await self.life.end(signal.SIGINT) if self.is_alive else None


class Household:
    """A hub with its state in a folder, and boxes by name, all of one site."""

    def __init__(self, folder: Path, url: str, boxes: Sequence[str] = ("box",), broker: str = "") -> None:
        self.folder, self.url = folder, url
        self.accepted: list[JobId] = []
        port = url.rpartition(":")[2]
        where = ["--broker", broker or url, "--port", port, "--state", str(self.state)]
        self.hub = Member(folder, "hub", *where, "--slots", "1", "--json")
        self.boxes = {name: self._box(name) for name in boxes}

    @property
    def state(self) -> Path:
        return self.folder / "hub"

    @property
    def box(self) -> Member:
        """The only box, or the first."""
        return next(iter(self.boxes.values()))

    def _box(self, name: str) -> Member:
        options = ["--name", name, "--max-foreign-load", "1.0", "--state", str(self.folder / name), "--json"]
        return Member(self.folder, "agent", "--broker", self.url, *options)

    async def start_hub(self, *doom: str) -> None:
        """Start the hub, and wait until it is heard."""
        life = await self.hub.start(*doom)
        await life.logged("connected to broker")

    async def rest(self) -> None:
        """End everybody in order, as Ctrl-C does."""
        for member in (*self.boxes.values(), self.hub):
            if member.is_alive:
                assert await member.end() == 0, member.life.log[-4000:]

    def books(self) -> Books:
        """Read what the hub has written down."""
        database = Database.read(self.state / JOURNAL)
        try:
            return guarantees.read_books(database)
        finally:
            database.close()

    def evidence(self) -> Evidence:
        """Return all that is known; no box may be running, since their outboxes are read."""
        lives = [life for name, member in self.boxes.items() for life in agent_lives(_device(name), member)]
        outboxes = {_device(name): self.folder / name / "outbox.sqlite" for name in self.boxes}
        return Evidence(self.accepted, self.books(), lives, outboxes)


def agent_lives(device: DeviceId, member: Member) -> Iterator[AgentLife]:
    """Yield what each life of a box has told."""
    for number, life in enumerate(member.lives, 1):
        yield AgentLife(device, number, tuple(read(life.log)))


def _device(name: str) -> DeviceId:
    return device_id(DEFAULT_SITE, name)


@contextlib.asynccontextmanager
async def household(
    folder: Path, url: str, boxes: Sequence[str] = ("box",), broker: str = ""
) -> AsyncIterator[Household]:
    """A household of which nobody lives yet; whoever lives at the end of the block is ended."""
    made = Household(folder, url, boxes, broker)
    try:
        yield made
    finally:
        for member in (*made.boxes.values(), made.hub):
            if member.is_alive:
                await member.life.end(signal.SIGKILL)
