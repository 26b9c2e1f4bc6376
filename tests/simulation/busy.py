"""How busy devices were, from the results that they sent."""

from __future__ import annotations

from collections.abc import Iterable

from resonator_hub.scheduler.events import Event, Measured


def measuring_share(events: Iterable[Event]) -> float:
    """Return the share of the time from its first to its last result that each device measured, on average.

    Only kernels' results begin and end the time; whole models in between count as measuring, too.
    """
    by_device: dict[str, list[Measured]] = {}
    for event in events:
        if isinstance(event, Measured):
            by_device.setdefault(event.device, []).append(event)
    busy_s = span_s = 0.0
    for own in by_device.values():
        kernels = [place for place, result in enumerate(own) if "/t" in result.candidate]
        if kernels:
            first, last = kernels[0], kernels[-1]
            span_s += own[last].at - own[first].at
            busy_s += sum(result.device_time_s for result in own[first + 1 : last + 1])
    return busy_s / span_s
