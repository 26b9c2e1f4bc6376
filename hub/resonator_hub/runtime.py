"""The shell around the scheduler: an event is journalled, then stepped, then its commands are handed on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

import structlog

from resonator.full_disk import DiskUnusable, unusable
from resonator_hub.inbox import Inbox, Posted
from resonator_hub.journal import Journal
from resonator_hub.keeper import Keeper
from resonator_hub.meter import metered
from resonator_hub.performers import Act, Work, failed
from resonator_hub.rules import Rules
from resonator_hub.scheduler import IllegalTransition, Scheduler
from resonator_hub.scheduler.commands import Command, WakeAt
from resonator_hub.scheduler.events import Event, HubStarted, Tick
from resonator_hub.snapshots import Moment
from resonator_hub.tasks import Tasks
from resonator_hub.watch.keys import keys_of
from resonator_hub.watch.observer import Observer, Observers

log = structlog.get_logger(__name__)


class Runtime:
    """Moves events and commands; how a command is performed is its package's affair.

    `acts` are performed at once and in order, `works` in their own time, and `recall` hears the commands of
    the past while the journal is folded. Without a `keeper` every start folds all of it.
    """

    def __init__(
        self,
        inbox: Inbox,
        journal: Journal,
        scheduler: Scheduler,
        *,
        acts: Mapping[type[Command], Act],
        works: Mapping[type[Command], Work],
        recall: Mapping[type[Command], Act],
        keeper: Keeper | None = None,
    ) -> None:
        self._inbox = inbox
        self._journal = journal
        self._scheduler = scheduler
        self._acts = acts
        self._works = works
        self._recalled = recall
        self._keeper = keeper
        self._observers = Observers()
        self._tasks = Tasks()
        self._steps = 0
        self._latest_at = 0.0
        self._wake: asyncio.TimerHandle | None = None
        self._disk: DiskUnusable | None = None

    def restore(self) -> int:
        """Fold what the journal holds since the latest snapshot, so that the scheduler knows what it knew.

        Return the number of events folded. Raises JournalUnreadable.
        """
        moment = self._keeper.restore() if self._keeper else Moment()
        for command in moment.past():
            self._recall(command)
        self._latest_at, count = moment.at, 0
        for event in self._journal.events(after=moment.seq):
            for command in self._step(event):
                self._recall(command)
            self._latest_at = max(self._latest_at, event.at)
            count += 1
        if self._keeper:
            self._keeper.count(count, self._journal.length(), self._latest_at)
            self._keeper.settle()
        return count

    def _recall(self, command: Command) -> None:
        if act := self._recalled.get(type(command)):
            act(command)

    def observe(self, observer: Observer) -> None:
        """Tell somebody of all that happens from here on; what the journal holds is the past."""
        self._observers.add(observer)

    def start(self, slots: int, rules: Rules) -> None:
        """Have everything that was under way asked for again."""
        at = self._inbox.now()
        self._inbox.post(HubStarted(at, slots, rules.policy, rules.batch, rules.window_s))

    async def run(self) -> None:
        """Take events, until cancelled. Raises what keeps them, or what a step makes, from being kept."""
        if self._keeper:
            self._tasks.start("keeper", self._keeper.run())
        try:
            while True:
                self._take(await self._inbox.next())
        except asyncio.CancelledError:
            if self._keeper:
                self._keeper.settle()
            raise
        finally:
            if self._wake is not None:
                self._wake.cancel()
            await self._tasks.close()

    def _take(self, posted: list[Posted]) -> None:
        """Take all events that wait: the disk, which is what takes time, is waited for once."""
        if self._disk is not None:
            raise self._disk
        events = [self._in_time(one.event) for one in posted]
        began = time.perf_counter()
        try:
            entries = [(event, one.also) for event, one in zip(events, posted, strict=True)]
            seq = self._journal.append_all(entries)
        except Exception as error:
            for one in posted:
                if not one.taken.cancelled():
                    one.taken.set_exception(error)
            raise
        self._observers.committed(len(events), time.perf_counter() - began)
        for event, one in zip(events, posted, strict=True):
            commands = self._step(event)
            self._observers.stepped(event, commands, self._inbox.now() - one.event.at)
            if not one.taken.cancelled():
                one.taken.set_result(None)
            for command in commands:
                self._perform(command)
        if self._keeper:
            self._keeper.count(len(events), seq, self._latest_at)

    def _in_time(self, event: Event) -> Event:
        # Events wait in the queue, and one that was made earlier may come later: time goes one way only.
        self._latest_at = max(self._latest_at, event.at)
        return replace(event, at=self._latest_at)

    def _step(self, event: Event) -> list[Command]:
        try:
            return self._scheduler.step(event)
        except IllegalTransition as error:
            # Nothing has changed, and nothing will when the journal is folded: this event is the same then.
            name, keys = type(event).__name__, keys_of(event)
            log.error("event refused by the scheduler", event_name=name, **keys, reason=str(error))
            return []

    def _perform(self, command: Command) -> None:
        if isinstance(command, WakeAt):
            self._wake_at(command.at)
        elif work := self._works.get(type(command)):
            self._steps += 1
            self._tasks.start(self._steps, self._work(work, command))
        else:
            self._act(command)

    def _act(self, command: Command) -> None:
        try:
            self._acts[type(command)](command)
        except Exception:
            name, keys = type(command).__name__, keys_of(command)
            log.exception("a command could not be performed", command=name, **keys)
            if self._keeper and type(command) in self._recalled:
                self._keeper.distrust()  # only the next fold makes up for it

    async def _work(self, work: Work, command: Command) -> None:
        with metered() as meter:
            try:
                event = await work(command)
            except Exception as error:
                self._disk = self._disk or unusable(error)
                event = failed(command, self._disk or error, self._inbox.now())
        self._inbox.post(replace(event, cpu_s=meter.cpu_s))

    def _wake_at(self, at: float) -> None:
        self._cancel_wake()
        delay = max(0.0, at - self._inbox.now())
        self._wake = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._wake = None
        self._inbox.post(Tick(self._inbox.now()))

    def _cancel_wake(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
