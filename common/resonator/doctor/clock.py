"""Whether this machine's clock can be trusted: signed messages and certificates go by it."""

from __future__ import annotations

import ctypes
import time
from datetime import datetime, timezone

from resonator.doctor.finding import Finding, failed, ok, warning

BUILT = datetime(2026, 1, 1, tzinfo=timezone.utc).timestamp()
"""This software is younger than that: a clock that shows less is wrong."""
APART_S, TOO_FAR_S = 30.0, 600.0
"""How far the clocks of two machines may be apart; beyond the second limit a hub refuses requests."""
JUMP_S = 0.5
_SET = "set it, and keep it so: `timedatectl set-ntp true`"
_UNSYNCHRONISED = 5
"""TIME_ERROR of adjtimex(2)."""


class Stopwatch:
    """Notices a wall clock that is set while something else is looked at."""

    def __init__(self) -> None:
        self._began = time.time() - time.monotonic()

    def jumped_s(self) -> float:
        """Return by how many seconds the wall clock was set."""
        return time.time() - time.monotonic() - self._began


def look_at_clock(
    now: float, jumped_s: float, ahead_s: float | None, *, synchronised: bool | None
) -> Finding:
    """Judge the clock: `now` by it, how it jumped meanwhile, and how far it is `ahead_s` of a hub's."""
    said = f"{datetime.fromtimestamp(now, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    if now < BUILT:
        return failed("clock", f"it says {said}, which cannot be", _SET)
    if ahead_s is not None and abs(ahead_s) > TOO_FAR_S:
        says = (
            f"it is {_apart(ahead_s)} the hub's, which refuses requests beyond {TOO_FAR_S / 60:.0f} minutes"
        )
        return failed("clock", says, f"{_SET}; look at the hub's clock, too")
    if ahead_s is not None and abs(ahead_s) > APART_S:
        return warning("clock", f"it is {_apart(ahead_s)} the hub's", f"{_SET}; look at the hub's clock, too")
    if abs(jumped_s) > JUMP_S:
        says = f"it was set by {jumped_s:+.1f} s while it was looked at"
        return warning("clock", says, "let one program alone set the clock, and slowly (chrony does)")
    if synchronised is False:
        return warning("clock", f"it says {said}, but nothing keeps it right", _SET)
    beside = "" if ahead_s is None else f", within {max(abs(ahead_s), 0.1):.1f} s of the hub's"
    return ok("clock", f"it says {said}{beside}")


def kernel_synchronised() -> bool | None:
    """Return whether something disciplines the clock, as the kernel was told; None where it does not say."""
    state = ctypes.create_string_buffer(512)  # struct timex, all zero: nothing is to be changed
    try:
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(state)
    except (OSError, AttributeError):
        return None
    return None if answer < 0 else answer != _UNSYNCHRONISED


def _apart(ahead_s: float) -> str:
    apart = f"{abs(ahead_s) / 60:.0f} minutes" if abs(ahead_s) >= 120 else f"{abs(ahead_s):.0f} s"
    return f"{apart} {'ahead of' if ahead_s > 0 else 'behind'}"
