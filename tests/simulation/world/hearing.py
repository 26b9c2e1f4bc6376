"""How the judge hears of what happens inside the programs: their logs, their journals, what they refuse."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any
from unittest.mock import patch

import structlog

from resonator.bus.gate import Gate
from resonator_hub.database import DatabaseLost, DatabaseUnusable, Write
from resonator_hub.journal import Journal
from resonator_hub.scheduler.events import Event
from simulation.world.process import CURRENT, Killed
from simulation.world.watch import Watch

LOUD = {"error", "exception", "critical"}
BY_DESIGN = ("this agent ends", "is damaged")
"""What is an error to people who watch, and none of the program's."""


@contextlib.contextmanager
def everything(watch: Watch, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have the judge hear everything, for as long as the world turns."""
    append_all, refuse = Journal.append_all, Gate.refuse

    def appended(journal: Journal, entries: Sequence[tuple[Event, Write | None]]) -> int:
        watch.writing = [event for event, _ in entries]
        try:
            return append_all(journal, entries)
        finally:
            watch.writing = []

    def refused(gate: Gate, why: str, topic: str, detail: str) -> None:
        watch.refusal(why, topic, detail)
        refuse(gate, why, topic, detail)

    loop.set_exception_handler(lambda _loop, context: _unhandled(watch, context))
    with (
        patch.object(Journal, "append_all", appended),
        patch.object(Gate, "refuse", refused),
        _logs(watch),
    ):
        yield


@contextlib.contextmanager
def _logs(watch: Watch) -> Iterator[None]:
    def judge(_logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if method in LOUD or event.get("exc_info"):
            _loud(watch, event)
        raise structlog.DropEvent

    processors = structlog.get_config()["processors"]
    before = list(processors)
    processors[:] = [judge]  # in place: loggers that were used before have them
    try:
        yield
    finally:
        processors[:] = before


def _loud(watch: Watch, event: MutableMapping[str, Any]) -> None:
    process = CURRENT.get()
    said = str(event.get("event"))
    if (process is not None and not process.alive) or any(words in said for words in BY_DESIGN):
        return
    error = event.get("exc_info")
    if error is True:
        told = traceback.format_exc()
    elif isinstance(error, BaseException):
        told = "".join(traceback.format_exception(error))
    else:
        told = ""
    rest = {key: value for key, value in event.items() if key not in ("event", "exc_info")}
    watch.error(_name(), f"{said} {rest if rest else ''}".strip(), told)


def _unhandled(watch: Watch, context: dict[str, Any]) -> None:
    if asyncio._get_running_loop() is None:
        return  # the world has ended
    error, process = context.get("exception"), CURRENT.get()
    if isinstance(error, Killed) or (process is not None and not process.alive):
        return
    if isinstance(error, (DatabaseLost, DatabaseUnusable)):
        return  # the hub ends of it, and says so; not everybody who waits for an event is told again
    told = "" if error is None else "".join(traceback.format_exception(error))
    watch.error(_name(), str(context.get("message")), told)


def _name() -> str:
    process = CURRENT.get()
    return "the world" if process is None else process.name
