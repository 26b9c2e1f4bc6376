"""A journal told again: folded through a fresh scheduler, whether or not its hub is running.

Where its beginning is forgotten, the tale begins with the snapshot that took its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from pathlib import Path

from rich.table import Table

from resonator.cli import output
from resonator.errors import InputInvalid
from resonator.messages import DeviceReport, JobStatus
from resonator_hub.database import Database
from resonator_hub.journal import Journal
from resonator_hub.rules import began
from resonator_hub.scheduler import IllegalTransition, Knobs, Scheduler
from resonator_hub.scheduler.events import CandidatesSelected, Event
from resonator_hub.snapshots import Snapshots


@dataclass(frozen=True)
class Story:
    """What happened to one entity, a line each."""

    entity: str
    lines: tuple[str, ...]


@dataclass
class Folded:
    """A scheduler after all that is in a journal; `refused` are the events it did not accept.

    `begins` is the time of the snapshot that the journal begins with, 0 where nothing is forgotten.
    """

    scheduler: Scheduler
    begins: float = 0.0
    events: int = 0
    refused: list[str] = field(default_factory=list)
    parts: dict[str, list[str]] = field(default_factory=dict)
    """The rounds and candidates of each task."""

    def take(self, event: Event) -> None:
        """Step the scheduler."""
        self.events += 1
        if isinstance(event, CandidatesSelected):
            names = (f"{event.task}/r{event.round}", *(found.candidate for found in event.candidates))
            self.parts.setdefault(event.task, []).extend(names)
        try:
            self.scheduler.step(event)
        except IllegalTransition as error:
            self.refused.append(f"event {self.events}: {error}")

    def story(self, entity: str) -> Story:
        """Return an entity's story, a task's by its rounds and candidates.

        Raises InputInvalid for one that the journal does not know.
        """
        parts = self.parts.get(entity)
        if parts is not None:
            return Story(entity, _merged({part: self.scheduler.story(part) for part in parts}))
        if lines := tuple(self.scheduler.story(entity)):
            return Story(entity, lines)
        jobs = ", ".join(status.job for status in self.jobs()[:10]) or "none"
        devices = ", ".join(report.device for report in self.devices()[:10]) or "none"
        begins = f", which begins at {datetime.fromtimestamp(self.begins):%Y-%m-%d}," if self.begins else ""
        raise InputInvalid(
            f"the journal{begins} tells nothing of {entity!r}; its jobs: {jobs}; its devices: {devices}"
        )

    def jobs(self) -> Sequence[JobStatus]:
        """Return the jobs, newest first."""
        return self.scheduler.statuses(1000)

    def devices(self) -> Sequence[DeviceReport]:
        """Return the devices."""
        return self.scheduler.devices()


def fold(place: Path | str) -> Folded:
    """Fold the journal in a state directory, a file or a URL's database; raises InputInvalid for none."""
    database = Database.read(place)
    try:
        journal = Journal(database)
        rules = began(journal)
        if rules is None:
            raise InputInvalid(f"the journal in {database} is empty")
        folded = Folded(rules.scheduler(stories=Knobs(stories=1_000_000, story_lines=10_000)))
        moment = Snapshots(database).first(folded.scheduler)
        folded.begins = moment.at
        for event in journal.events(after=moment.seq):
            folded.take(event)
        return folded
    finally:
        database.close()


def _merged(stories: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the lines of several stories in order of time, each with the last part of its entity's name."""
    lines = []
    for entity, story in stories.items():
        for line in story:
            at, _, rest = line.partition(" ")
            lines.append((float(at), f"{at} {entity.rpartition('/')[2]}: {rest}"))
    return tuple(line for _, line in sorted(lines, key=itemgetter(0)))


def print_stories(stories: Sequence[Story], *, as_json: bool) -> None:
    """Print stories, times as the clock showed them."""
    if as_json:
        output.print_json({"stories": [{"entity": story.entity, "lines": story.lines} for story in stories]})
        return
    console = output.console()
    for story in stories:
        console.print(f"[bold]{story.entity}[/bold]")
        for line in story.lines:
            console.print(f"  {_with_clock(line)}", markup=False)


def print_overview(folded: Folded, *, as_json: bool) -> None:
    """Print the jobs and devices of a journal."""
    if as_json:
        output.print_json(
            {
                "events": folded.events,
                "refused": folded.refused,
                "jobs": [status.model_dump(mode="json") for status in folded.jobs()],
                "devices": [report.model_dump(mode="json") for report in folded.devices()],
            }
        )
        return
    console = output.console()
    console.print(f"{folded.events} events, {len(folded.refused)} of them refused")
    console.print(_jobs(folded.jobs()))
    console.print(_devices(folded.devices()))


def _jobs(statuses: Sequence[JobStatus]) -> Table:
    table = Table("job", "state", "trials", "untuned", "tuned", "failure")
    for status in statuses:
        table.add_row(
            status.job,
            status.state.value,
            f"{status.trials}/{status.budget}",
            output.latency(status.untuned.median if status.untuned else None),
            output.latency(status.tuned.median if status.tuned else None),
            str(status.failure or ""),
        )
    return table


def _devices(reports: Sequence[DeviceReport]) -> Table:
    table = Table("device", "state", "epoch", "measured", "busy")
    for report in reports:
        busy = output.duration(report.busy_s)
        table.add_row(report.device, report.state, str(report.epoch), str(report.measured), busy)
    return table


def _with_clock(line: str) -> str:
    """Show the time of a line, seconds since the epoch, as date and clock."""
    seconds, _, rest = line.partition(" ")
    try:
        at = datetime.fromtimestamp(float(seconds))
    except ValueError:
        return line
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03} {rest}"
