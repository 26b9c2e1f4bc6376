"""Examinations, all at once, and none for longer than its time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from resonator.doctor.finding import Finding, failed
from resonator.errors import ResonatorError
from resonator.settings import ClientSettings

LEEWAY_S = 2.0
"""How much longer than its own patience an examination may take before it is given up."""


@dataclass(frozen=True)
class Where:
    """What is to be looked at: the client's settings, and the state directories of a hub and an agent here.

    `timeout` is how long, in seconds, anything may leave us without an answer.
    """

    settings: ClientSettings
    timeout: float
    hub: Path | None = None
    agent: Path | None = None


@dataclass(frozen=True)
class Examination:
    """Something to look at; whatever it raises, and that it does not end, is a finding too."""

    name: str
    look: Callable[[], Sequence[Finding]]


def examine(examinations: Sequence[Examination], timeout: float) -> list[Finding]:
    """Look at everything at the same time and return what was found, in the order given.

    The threads are daemons: what hangs in the operating system does not keep the command from ending.
    """
    found: list[list[Finding]] = [[] for _ in examinations]
    threads = [
        threading.Thread(target=_look, args=(one, place), daemon=True)
        for one, place in zip(examinations, found, strict=True)
    ]
    for thread in threads:
        thread.start()
    give_up = time.monotonic() + timeout + LEEWAY_S
    for thread in threads:
        thread.join(max(0.0, give_up - time.monotonic()))
    return [
        finding
        for one, thread, place in zip(examinations, threads, found, strict=True)
        for finding in (_hangs(one, timeout) if thread.is_alive() else place)
    ]


def _look(examination: Examination, place: list[Finding]) -> None:
    try:
        place.extend(examination.look())
    except ResonatorError as error:
        place.append(failed(examination.name, str(error), "see what it says"))
    except Exception as error:
        place.append(
            failed(examination.name, f"could not be examined: {error!r}", "this is a bug: report it")
        )


def _hangs(examination: Examination, timeout: float) -> list[Finding]:
    says = f"there was no answer within {timeout + LEEWAY_S:g} s"
    return [failed(examination.name, says, "look for a network disk or server that hangs, or give --timeout")]
