"""A simulated fleet whose hub keeps a real journal: for days, or for a year."""

from __future__ import annotations

from pathlib import Path

from resonator_hub.database import Database, sqlite_url
from resonator_hub.inbox import Clock, Inbox
from resonator_hub.journal import JOURNAL, Journal
from resonator_hub.keeper import Keeper
from resonator_hub.runtime import Runtime
from resonator_hub.scheduler import Scheduler
from resonator_hub.scheduler import commands as c
from resonator_hub.scheduler import events as e
from resonator_hub.snapshots import DAY_S, Snapshots
from simulation.simulator import Faults, Simulator, Stages

WEATHER = Faults(dirty=0.01, refused=0.002, kernel=0.05, build=0.03, loss_every_s=2 * DAY_S, outage_s=600.0)
"""A box is out of sight every other day, for ten minutes."""
_AT_ONCE = 200
"""Events that are journalled together, so that it is not the disk that is measured."""


class KeptFleet(Simulator):
    """Boxes of two models, and jobs that come all day long: `jobs_a_day`, of `trials` at the most."""

    def __init__(
        self, folder: Path, *, boxes: int, jobs_a_day: int, trials: int, every: int, keep_s: float
    ) -> None:
        super().__init__(stages=Stages(spread=0.3), faults=WEATHER, slots=8, seed=11)
        self._digesting = False
        self.database = Database.open(sqlite_url(folder / JOURNAL))
        self.events = 0
        self._written: list[e.Event] = []
        self._pushes: dict[str, list[c.Profile]] = {}
        self._jobs_a_day = jobs_a_day
        self._trials = trials
        self._log = Journal(self.database)
        self.keeper = Keeper(
            self._log, Snapshots(self.database), self.scheduler, self._expected, every=every, keep_s=keep_s
        )
        for number in range(boxes):
            self.add_box(f"lab/box{number}", labels=(("model", f"m{number % 2}"),))

    def plays(self, days: int) -> None:
        """Play some days, and forget after each what need not be kept."""
        for _ in range(days):
            began = self.now
            for _ in range(self._jobs_a_day):
                at = began + self.random.uniform(0.0, DAY_S)
                trials = self.random.randint(self._trials // 4, self._trials)
                self.add_job(f"job{len(self.tasks)}", tasks=self.random.randint(1, 6), trials=trials, at=at)
            self.run(until=began + DAY_S, all_jobs=False)
            self.now = began + DAY_S
            self.records.clear()
            self.write()
            for _ in self.keeper.forget():
                pass

    def feed(self, event: e.Event) -> None:
        """Have an event taken, and journalled with others."""
        super().feed(event)
        self._written.append(event)
        if len(self._written) >= _AT_ONCE:
            self.write()

    def write(self) -> None:
        """Journal what happened."""
        if written := self._written:
            self._written = []
            seq = self._log.append_all([(event, None) for event in written])
            self.events += len(written)
            self.keeper.count(len(written), seq, written[-1].at)

    def _expected(self) -> list[c.Profile]:
        return [push for pushed in self._pushes.values() for push in pushed]

    def _perform(self, command: c.Command) -> None:
        if isinstance(command, c.Profile):
            self._pushes.setdefault(command.job, []).append(command)
        elif isinstance(command, c.Report) and command.ended:
            self._pushes.pop(command.job, None)
        super()._perform(command)


def played(jobs: int, *, apart_s: float, slots: int = 2) -> list[e.Event]:
    """Return what happens to six boxes until so many jobs have ended, one of which comes every `apart_s`."""
    world = Simulator(stages=Stages(spread=0.3), faults=WEATHER, slots=slots, seed=7)
    world.journal = []
    for number in range(6):
        world.add_box(f"lab/box{number}")
    for number in range(jobs):
        world.add_job(f"job{number}", tasks=2, trials=48, at=number * apart_s)
    world.run()
    return world.journal


def restarted(folder: Path) -> tuple[Scheduler, int]:
    """Return what a hub knows that starts with this journal, and how many events it folded for that."""
    database = Database.open(sqlite_url(folder / JOURNAL))
    try:
        journal, scheduler = Journal(database), Scheduler()
        keeper = Keeper(journal, Snapshots(database), scheduler, list)
        inbox = Inbox(Clock(not_before=journal.last_at()))
        ignored = {c.Profile: lambda _: None}
        runtime = Runtime(inbox, journal, scheduler, acts={}, works={}, recall=ignored, keeper=keeper)
        return scheduler, runtime.restore()
    finally:
        database.close()
