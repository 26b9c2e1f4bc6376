"""What processes told in their JSON logs: one line after the other, one life of a process after the other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from resonator.ids import DeviceId


@dataclass(frozen=True)
class Line:
    """One line: when (seconds since the epoch), what, and its particulars."""

    at: float
    event: str
    fields: Mapping[str, Any]

    @property
    def epoch(self) -> int:
        return int(self.fields["epoch"])


@dataclass(frozen=True)
class AgentLife:
    """All that an agent logged from its start to its end; `number` counts the lives of its box from 1."""

    device: DeviceId
    number: int
    lines: Sequence[Line]

    def __str__(self) -> str:
        return f"life {self.number} of {self.device}"


@dataclass(frozen=True)
class Span:
    """A window as its box told it; `end` is the last line of a life that ended while it was open."""

    device: DeviceId
    epoch: int
    start: float
    end: float
    story: str

    def __str__(self) -> str:
        return f"window {self.epoch} of {self.device} in {self.story}, {self.start:.3f} to {self.end:.3f}"


def read(log: str) -> Iterator[Line]:
    """Yield the lines of a log; what is not JSON, such as a line cut off by kill -9, is left out."""
    for text in log.splitlines():
        if (line := _line(text)) is not None:
            yield line


def _line(text: str) -> Line | None:
    try:
        fields = json.loads(text)
        at = datetime.fromisoformat(fields.pop("timestamp").replace("Z", "+00:00")).timestamp()
        return Line(at, str(fields.pop("event")), fields)
    except (ValueError, KeyError, AttributeError, TypeError):
        return None


def windows(life: AgentLife) -> tuple[list[Span], list[str]]:
    """Return the windows of one life, and every line that tells of something outside of its window."""
    spans: list[Span] = []
    outside: list[str] = []
    opened: Line | None = None
    for line in life.lines:
        if line.event == "window open":
            if opened is not None and opened.epoch == line.epoch:
                continue  # said again, because the hub asked again
            if opened is not None:
                outside.append(f"{life}: window {line.epoch} opens while {opened.epoch} is open")
            opened = line
        elif line.event == "window closed" and line.fields.get("reason") != "restarted":
            if opened is None or opened.epoch != line.epoch:
                outside.append(f"{life}: window {line.epoch} closes and was not open")
            else:
                spans.append(Span(life.device, line.epoch, opened.at, line.at, str(life)))
            opened = None
        elif line.event in {"measured", "failed"} and (opened is None or opened.epoch != line.epoch):
            outside.append(f"{life}: {line.fields['candidate']} {line.event} outside of window {line.epoch}")
    if opened is not None:
        spans.append(Span(life.device, opened.epoch, opened.at, life.lines[-1].at, str(life)))
    return spans, outside
