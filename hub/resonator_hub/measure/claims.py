"""PURE: no device can have spent more time in a window than has passed since it was opened."""

from __future__ import annotations

from dataclasses import dataclass

from resonator.ids import DeviceId

RATE, SLACK_S = 1.01, 0.05
"""How much faster than the hub's a device's clock may run, and what is granted to its granularity."""
LONGEST_S = 3600.0
"""No kernel and no model takes so long: its time limit is ten minutes at most."""
_REMEMBERED = 16
"""Windows of a device whose late results are still judged; older ones are taken at their word."""


@dataclass
class _Window:
    opened_at: float
    claimed_s: float = 0.0


class Claims:
    """Adds up the seconds that devices say they spent, window by window."""

    def __init__(self) -> None:
        self._windows: dict[DeviceId, dict[int, _Window]] = {}

    def opened(self, device: DeviceId, epoch: int, at: float) -> None:
        """Count from here on, by a clock that nobody sets: nothing is sent into a window before."""
        windows = self._windows.setdefault(device, {})
        windows[epoch] = _Window(at)
        if len(windows) > _REMEMBERED:
            del windows[next(iter(windows))]

    def objection(self, device: DeviceId, epoch: int, device_time_s: float, at: float) -> str | None:
        """Take a claim made at `at` and return None, or say why it cannot be true."""
        if device_time_s > LONGEST_S:
            return f"device_time: {device_time_s:g} s; at most {LONGEST_S:g} s are accepted"
        window = self._windows.get(device, {}).get(epoch)
        if window is None:  # opened in an earlier life of this hub
            return None
        passed_s = at - window.opened_at
        if window.claimed_s + device_time_s > passed_s * RATE + SLACK_S:
            return (
                f"device_time: {device_time_s:g} s on top of {window.claimed_s:g} s in a window that was "
                f"opened {passed_s:.3g} s ago"
            )
        window.claimed_s += device_time_s
        return None
