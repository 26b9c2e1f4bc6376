"""Who looks on while the hub works: told of each event and its commands, heard by nobody."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from resonator_hub.scheduler.commands import Command
from resonator_hub.scheduler.events import Event

log = structlog.get_logger(__name__)


class Observer(Protocol):
    """Somebody who looks on."""

    def committed(self, events: int, seconds: float) -> None:
        """So many events were journalled at once, in so many seconds."""

    def stepped(self, event: Event, commands: Sequence[Command], waited_s: float) -> None:
        """The scheduler has taken an event, `waited_s` seconds after it happened, and given commands."""


class Observers:
    """Several observers; what one of them gets wrong costs its observation, and never the hub."""

    def __init__(self) -> None:
        self._all: list[Observer] = []

    def add(self, observer: Observer) -> None:
        """Tell one more."""
        self._all.append(observer)

    def committed(self, events: int, seconds: float) -> None:
        """Tell all of a commit."""
        self._tell(lambda observer: observer.committed(events, seconds))

    def stepped(self, event: Event, commands: Sequence[Command], waited_s: float) -> None:
        """Tell all of a step."""
        self._tell(lambda observer: observer.stepped(event, commands, waited_s))

    def _tell(self, news: Callable[[Observer], None]) -> None:
        for observer in self._all:
            _tell(observer, news)


def _tell(observer: Observer, news: Callable[[Observer], None]) -> None:
    try:
        news(observer)
    except Exception:
        log.exception("an observer failed", observer=type(observer).__name__)
