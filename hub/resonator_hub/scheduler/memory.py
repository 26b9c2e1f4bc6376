"""What of the scheduler's state is kept, so that it can be taken up without all the events that led there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from resonator_hub.scheduler.desk import Desk
from resonator_hub.scheduler.ended import EndedJob
from resonator_hub.scheduler.snapshot import SnapshotUnreadable, dump, load

_RULES = {"policy", "knobs"}
"""By what the scheduler decides: it has that already."""

_APART = {"stories", "ended", "delivered"}
"""What grows with all the past: stories begin anew, and jobs that have ended are kept by themselves."""

STATE = tuple(one.name for one in fields(Desk) if one.name not in _RULES | _APART)
"""The fields of the desk that are kept."""


def save(desk: Desk) -> bytes:
    """Return the state between two steps."""
    return dump({name: getattr(desk, name) for name in STATE})


def restore(desk: Desk, state: bytes, ended: Iterable[EndedJob]) -> None:
    """Put a desk in a state that was saved; raises SnapshotUnreadable, having changed nothing."""
    told, jobs = load(state), list(ended)
    if unknown := set(told) - set(STATE):
        raise SnapshotUnreadable(f"the snapshot cannot be read: this version knows no {min(unknown)}")
    for name, value in told.items():
        setattr(desk, name, value)
    desk.ended.restore(jobs)
    desk.delivered = {}
    for one in jobs:
        if one.bundle is not None:
            desk.delivered[one.bundle] = (*desk.delivered.get(one.bundle, ()), one.job)
