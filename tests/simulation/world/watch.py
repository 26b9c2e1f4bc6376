"""The judge: hears of everything that matters, and says what must not be."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from resonator.bus import codec
from resonator.messages import KernelResult
from resonator_agent.events import Outcome
from resonator_agent.outbox import Kept
from resonator_hub.scheduler.commands import Command, Record
from resonator_hub.scheduler.events import Event, Measured
from simulation.world.process import CURRENT
from simulation.world.profiling import Measurement

_SERIAL = re.compile(r"run (\d+): ")
LATE_S = 1e-3
"""A kernel that is stopped at the end of its lease ends at that very moment."""
UNHEARD_OF = {
    "error",
    "implausible",
    "invalid",
    "misplaced",
    "unexpected",
    "unusable",
    "of a kernel not given",
    "of another window",
    "flood",
}
"""Why nothing of honest parties is ever refused."""


class Violation(Exception):
    """What must not be has happened."""


@dataclass
class Lease:
    """The window that is open on a box."""

    epoch: int
    job: str


@dataclass
class BoxBook:
    """What is known of a box: the highest epoch it accepted, its window, what its profiler runs."""

    highest: int = 0
    lease: Lease | None = None
    expires: tuple[int, float] = (0, 0.0)
    running: Measurement | None = None


@dataclass
class Watch:
    """Keeps the books of a world; `story` is told to people, `digest` is the same for the same story."""

    story: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    boxes: dict[str, BoxBook] = field(default_factory=dict)
    accepted: dict[str, float] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    journal: set[int] = field(default_factory=set)
    counted: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    pushes: dict[int, tuple[str, int]] = field(default_factory=dict)
    turned_away: set[str] = field(default_factory=set)
    writing: list[Event] = field(default_factory=list)
    excused: Callable[[str], bool] = lambda name: False
    messages: int = 0
    runs: int = 0
    hubs: int = 1
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def digest(self) -> str:
        """What happened, in 64 hexadecimal digits."""
        return self._hash.hexdigest()

    def tell(self, line: str) -> None:
        """Put something into the story."""
        at = asyncio.get_running_loop().time()
        self.story.append(f"{at:10.3f}  {line}")
        self._hash.update(f"{at!r} {line}".encode())

    def violated(self, what: str) -> None:
        """Note that something must not be."""
        if what not in self.violations:
            self.violations.append(what)
            self.tell(f"VIOLATION: {what}")

    def error(self, name: str, said: str, told: str) -> None:
        """A program has logged an error, or an exception was caught by nobody."""
        if self.excused(name):
            self.tell(f"{name}: {said}")
        else:
            self.violated(f"{name}: {said}\n{told}".rstrip())

    def heard(self, broker: str, topic: str, payload: bytes) -> None:
        """A broker routes a message."""
        self.messages += 1
        at = asyncio.get_running_loop().time()
        self._hash.update(f"{at!r} {broker} {topic} {len(payload)}".encode())
        self._hash.update(payload)

    # --- boxes --------------------------------------------------------------------------------------------

    def box(self, name: str) -> BoxBook:
        """Return the book of a box."""
        return self.boxes.setdefault(name, BoxBook())

    def window(self, name: str, epoch: int, job: str | None) -> None:
        """A box has remembered for good that a window is open, or that none is."""
        book = self.box(name)
        if job is None:
            if book.lease is not None:
                self.tell(f"{name}: window {book.lease.epoch} is over")
            book.lease = None
            return
        if book.lease is not None:
            self.violated(f"{name}: window {epoch} opens while {book.lease.epoch} is open")
        if epoch <= book.highest:
            self.violated(f"{name}: window {epoch} opens after {book.highest}")
        book.highest, book.lease = epoch, Lease(epoch, job)
        self.tell(f"{name}: window {epoch} of {job} opens")

    def leased(self, name: str, epoch: int, expires: float) -> None:
        """Note until when a window of a box lasts, on the box's clock."""
        self.box(name).expires = (epoch, expires)

    def crashed(self, name: str) -> None:
        """The agent of a box is gone, and its profiler with it."""
        book = self.box(name)
        book.lease = book.running = None

    def begins(self, run: Measurement) -> None:
        """A profiler begins to run a kernel."""
        self.runs += 1
        book, push = self.box(run.box), run.push
        self.pushes[run.serial] = (push.candidate, push.epoch)
        if book.running is not None:
            self.violated(f"{run.box}: {push.candidate} runs beside {book.running.push.candidate}")
        lease = book.lease
        if lease is None or (lease.epoch, lease.job) != (push.epoch, push.job):
            self.violated(f"{run.box}: {push.candidate} of epoch {push.epoch} runs in {lease}")
        elif (push.epoch, run.began) >= book.expires:
            self.violated(f"{run.box}: {push.candidate} begins after the end of its lease")
        book.running = run

    def ends(self, run: Measurement, outcome: Outcome | None, *, asleep: bool) -> None:
        """A profiler has run a kernel; `asleep` if its agent was stopped meanwhile, and could not end it."""
        book = self.box(run.box)
        book.running = None
        epoch, expires = book.expires
        late = run.push.epoch != epoch or asyncio.get_running_loop().time() > expires + LATE_S
        if late and not asleep:
            self.violated(f"{run.box}: {run.push.candidate} ran beyond the end of its lease")

    # --- results ------------------------------------------------------------------------------------------

    def keeps(self, kept: Kept) -> None:
        """A box has kept a message on disk."""
        message = codec.decode(kept.payload).message
        if isinstance(message, KernelResult):
            serial = _serial(message.latencies, str(message.failure and message.failure.detail))
            if serial is not None:
                self.kept[kept.id] = serial

    def forgets(self, ids: tuple[str, ...]) -> None:
        """A box was told that the hub has messages for good; of several hubs each turns others' away."""
        for message_id in ids:
            serial = self.kept.pop(message_id, None)
            if serial is None or serial in self.journal or self.hubs > 1:
                continue
            if not self._in_vain(serial):
                self.violated(f"run {serial} of {self.pushes[serial]} was acknowledged, but is in no journal")

    def _in_vain(self, serial: int) -> bool:
        """Whether a run's result was turned away for a good reason."""
        candidate, epoch = self.pushes[serial]
        if f"{candidate} in window {epoch}" in self.turned_away:  # measured before
            return any(self.pushes[counted] == (candidate, epoch) for counted in self.journal)
        return f"for {candidate} in {epoch}" in self.turned_away

    def committed(self, _events: int, _seconds: float) -> None:
        """A hub has waited for its disk."""

    def written(self) -> None:
        """A hub has committed what it was writing."""
        events, self.writing = self.writing, []
        for event in events:
            if not isinstance(event, Measured):
                continue
            serial = _serial(event.latencies, str(event.failure and event.failure.detail))
            if serial is not None:
                self.journal.add(serial)

    def stepped(self, _event: Event, commands: Sequence[Command], _waited_s: float) -> None:
        """A hub's scheduler has taken an event."""
        for command in commands:
            if isinstance(command, Record):
                self._recorded(command.result)

    def _recorded(self, result: Measured) -> None:
        serial = _serial(result.latencies, str(result.failure and result.failure.detail))
        if result.candidate in self.counted and self.hubs == 1:
            first = self.counted[result.candidate]
            self.violated(f"{result.candidate} was counted by run {serial}, and by run {first} before")
        if serial is not None:
            self.counted[result.candidate] = serial

    def compare(self, records: Mapping[str, Sequence[float]]) -> None:
        """See whether what is on record in the end is what was measured and counted."""
        for candidate in self.counted.keys() - records.keys():
            self.violated(f"{candidate} was counted by run {self.counted[candidate]}, but is not on record")
        for candidate, latencies in records.items():
            serial = _serial(tuple(latencies), "")
            if serial is not None and (serial not in self.journal or self.pushes[serial][0] != candidate):
                self.violated(f"{candidate} is on record with what came of run {serial}")

    def refusal(self, why: str, topic: str, detail: str) -> None:
        """Somebody has not acted upon a message."""
        self.refused[why] += 1
        self.turned_away.add(detail[detail.find(" for ") + 1 :] if detail.startswith("nobody") else detail)
        process = CURRENT.get()
        name = process.name if process else "nobody"
        late = why == "unexpected" and topic.endswith("/dn/answer")  # whoever asked has given up
        excused = late or self.excused(name) or "the database" in detail
        if why in UNHEARD_OF and self.hubs == 1 and not excused:
            self.violated(f"{name} refuses ({why}) on {topic}: {detail}")

    # --- jobs ---------------------------------------------------------------------------------------------

    def accepts(self, job: str) -> None:
        """A user was told that a job will not be lost."""
        if job not in self.accepted:
            self.accepted[job] = asyncio.get_running_loop().time()
            self.tell(f"job {job} is accepted")

    def job_ended(self, job: str, how: str) -> None:
        """A user has seen the end of a job."""
        if self.ended.setdefault(job, how) != how and self.hubs == 1:
            self.violated(f"job {job} ended as {self.ended[job]} and as {how}")
        else:
            self.tell(f"job {job} has ended: {how}")


def _serial(latencies: tuple[float, ...], detail: str) -> int | None:
    """Return which run a result is of; None for what the hub has made up itself."""
    if latencies:
        return round((latencies[0] - round(latencies[0], 5)) / 1e-11)
    found = _SERIAL.search(detail)
    return int(found[1]) if found else None
