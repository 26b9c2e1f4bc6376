"""How much there is of everything at one moment: for those who watch, not for those who decide."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from resonator.ids import DeviceId
from resonator_hub.scheduler.desk import Desk
from resonator_hub.scheduler.device import Device
from resonator_hub.scheduler.events import Stage
from resonator_hub.scheduler.reporting import device_state
from resonator_hub.scheduler.transitions import DevicePhase


@dataclass(frozen=True, slots=True)
class Standing:
    """A device: its public state and health, and its kind of hardware in words."""

    device: DeviceId
    state: str
    health: str
    hardware: str


@dataclass(frozen=True, slots=True)
class Census:
    """Jobs that have not ended by phase, every device ever seen, and what is under way.

    `steps` wait for one of the compute `slots` (False) or run in it (True). `ready` kernels wait for a
    device, `outstanding` ones are there. `windows` are granted and not answered, open, closing, or on a
    device out of sight.
    """

    jobs: Counter[str]
    devices: tuple[Standing, ...]
    windows: Counter[str]
    slots: int
    steps: Counter[tuple[Stage, bool]]
    ready: int
    outstanding: int
    ignored: dict[str, int]


def census(desk: Desk) -> Census:
    """Count what is there; takes time in proportion to it."""
    devices = desk.fleet.devices.values()
    granted = [(device, device.window) for device in devices if device.window is not None]
    return Census(
        jobs=Counter(job.phase.value for job in desk.jobs.values()),
        devices=tuple(_standing(device, desk.knobs.strikes) for device in devices),
        windows=Counter(_window(device) for device, _ in granted),
        slots=len(desk.compute.slots),
        steps=Counter((step.kind, step.running) for job in desk.jobs.values() for step in job.steps.values()),
        ready=sum(len(batch.ready) for job in desk.jobs.values() for batch in job.batches.values()),
        outstanding=sum(len(window.outstanding) for _, window in granted),
        ignored=dict(desk.ignored),
    )


def _window(device: Device) -> str:
    if not device.present:
        return "out of sight"
    return {DevicePhase.RESERVED: "granted", DevicePhase.RUNNING: "open"}.get(device.phase, "closing")


def _standing(device: Device, strikes: int) -> Standing:
    kinds = "+".join(sorted({offer.kind for offer in device.offers}))
    return Standing(device.id, device_state(device), device.health(strikes), f"{kinds} {device.cpu_model}")
