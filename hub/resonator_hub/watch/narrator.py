"""What happens to jobs, windows and devices, as log lines that all bear the same keys.

`job`, `device` and `epoch` (the window) are on every line that concerns one, and `candidate` where there is
one. Single kernels are told at level debug: a fleet measures hundreds of them a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import structlog

from resonator.failures import Fault
from resonator.ids import DeviceId, JobId
from resonator.messages import JobStatus
from resonator_hub.scheduler.commands import CloseWindow, Command, OpenWindow, Report
from resonator_hub.scheduler.events import (
    BuildFailed,
    BundleDelivered,
    DeviceDrained,
    DeviceLost,
    DeviceSeen,
    DeviceUndrained,
    Event,
    JobCanceled,
    JobSubmitted,
    Measured,
    StageFailed,
    WindowClosed,
    WindowOpened,
    WindowRefused,
)
from resonator_hub.watch.keys import keys_of

log = structlog.get_logger(__name__)


class Narrator:
    """An observer that writes the log of the hub's work; `status` says how a job ended."""

    def __init__(self, status: Callable[[JobId], JobStatus]) -> None:
        self._status = status
        self._jobs: dict[DeviceId, JobId] = {}
        """Whose the latest window of a device is: the device's words name its epoch alone."""

    def committed(self, events: int, seconds: float) -> None:
        """Say nothing: this is for metrics."""

    def stepped(self, event: Event, commands: Sequence[Command], waited_s: float) -> None:
        """Tell an event, then what is done about it."""
        match event:
            case JobSubmitted() | JobCanceled() | BundleDelivered() | StageFailed() | BuildFailed():
                _tell_job(event)
            case WindowOpened() | WindowRefused() | WindowClosed():
                self._tell_window(event)
            case DeviceSeen() | DeviceLost() | DeviceDrained() | DeviceUndrained():
                _tell_device(event)
            case Measured():
                _tell_result(event)
        for command in commands:
            self._tell_command(command)

    def _tell_window(self, event: WindowOpened | WindowRefused | WindowClosed) -> None:
        keys: dict[str, Any] = {"job": self._jobs.get(event.device), **keys_of(event)}
        match event:
            case WindowOpened():
                log.info("window opened", **keys)
            case WindowRefused():
                log.warning("window refused", **keys, reason=event.reason)
            case WindowClosed():
                log.info("window closed", **keys, reason=event.reason)

    def _tell_command(self, command: Command) -> None:
        match command:
            case OpenWindow(device, job, epoch, duration_s):
                self._jobs[device] = job
                log.info("window granted", job=job, device=device, epoch=epoch, duration_s=duration_s)
            case CloseWindow(device, epoch):
                log.debug("window ends", job=self._jobs.get(device), device=device, epoch=epoch)
            case Report(job, ended=True):
                _tell_end(job, self._status(job))


def _tell_job(event: JobSubmitted | JobCanceled | BundleDelivered | StageFailed | BuildFailed) -> None:
    keys: dict[str, Any] = keys_of(event)
    match event:
        case JobSubmitted():
            log.info("job accepted", **keys, by=event.by, name=event.order.name)
        case JobCanceled():
            log.info("job canceled", **keys, by=event.by)
        case BundleDelivered():
            log.info("bundle delivered", **keys, bundle=event.bundle, size=event.size)
        case StageFailed():
            log.warning("step failed", **keys, stage=event.stage, failure=str(event.failure))
        case BuildFailed():
            log.debug("build failed", **keys, failure=str(event.failure))


def _tell_device(event: DeviceSeen | DeviceLost | DeviceDrained | DeviceUndrained) -> None:
    match event:
        case DeviceSeen():
            log.info("device seen", device=event.device, session=event.session, epoch=event.epoch)
        case DeviceLost(certain=True):
            log.warning("device lost", device=event.device)
        case DeviceLost():
            log.warning("device unknown", device=event.device, reason="its site's link is cut")
        case DeviceDrained():
            log.info("device drained", device=event.device, by=event.by, reason=event.reason)
        case DeviceUndrained():
            log.info("device undrained", device=event.device, by=event.by)


def _tell_result(event: Measured) -> None:
    keys: dict[str, Any] = keys_of(event)
    if event.failure is None:
        best_us = round(min(event.latencies, default=0.0) * 1e6, 1)
        log.debug("kernel measured", **keys, best_us=best_us, raced=event.raced)
    elif event.failure.kind.fault is Fault.KERNEL:
        log.debug("kernel failed", **keys, failure=str(event.failure))
    else:
        log.warning("kernel failed", **keys, failure=str(event.failure))


def _tell_end(job: JobId, status: JobStatus) -> None:
    failure = {} if status.failure is None else {"failure": str(status.failure)}
    tell = log.warning if failure else log.info
    tell(
        "job ended",
        job=job,
        state=status.state.value,
        trials=status.trials,
        elapsed_s=round(status.elapsed, 1),
        **failure,
    )
