"""What the scheduler tells people: the status of jobs and devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from resonator.messages import (
    Activity,
    BlobRef,
    DeviceReport,
    Drain,
    JobState,
    JobStatus,
    Latency,
    TaskStatus,
)
from resonator_hub.scheduler.desk import Desk
from resonator_hub.scheduler.device import Device, Window
from resonator_hub.scheduler.events import DeviceDrained, Measured
from resonator_hub.scheduler.job import Job
from resonator_hub.scheduler.measurement import median
from resonator_hub.scheduler.transitions import DevicePhase, JobPhase

_STATE = {
    JobPhase.QUEUED: JobState.QUEUED,
    JobPhase.SUCCEEDED: JobState.SUCCEEDED,
    JobPhase.FAILED: JobState.FAILED,
    JobPhase.CANCELED: JobState.CANCELED,
}
_PHASE = {
    JobPhase.EXTRACTING: "reading the model",
    JobPhase.TUNING: "tuning",
    JobPhase.DRAINING: "finishing what is on a device",
    JobPhase.COMPILING: "compiling the tuned model",
    JobPhase.VERIFYING: "measuring the tuned model",
    JobPhase.DELIVERING: "packing the bundle",
    JobPhase.BENCHING: "measuring the bundle",
}
DeviceStanding = Literal["offline", "unknown", "idle", "reserved", "running"]
_DEVICE_STATE: dict[DevicePhase, DeviceStanding] = {
    DevicePhase.OFFLINE: "offline",
    DevicePhase.UNKNOWN: "unknown",
    DevicePhase.IDLE: "idle",
    DevicePhase.RESERVED: "reserved",
    DevicePhase.RUNNING: "running",
    DevicePhase.CLOSING: "running",
}
_MOST_ACTIVITIES = 256
_LONGEST = 2000
"""Characters of a `messages.Text`: sixteen long labels make a longer sentence."""


def job_status(desk: Desk, job: Job) -> JobStatus:
    """Return all that is known of a job at this moment."""
    estimate = job.estimate()
    costs_of, costs = job.ledger.costs()
    return JobStatus(
        job=job.id,
        name=job.order.name,
        state=_STATE.get(job.phase, JobState.RUNNING),
        waiting_for=_waiting_for(desk, job)[:_LONGEST],
        phase=_PHASE.get(job.phase, ""),
        stopped=job.stopped,
        target=str(job.order.target)[:_LONGEST],
        trials=job.spent,
        budget=0 if job.order.bundle is not None else job.order.trials,
        failed_trials=job.failed_trials,
        elapsed=max(0.0, desk.now - job.submitted_at),
        estimate=estimate,
        tasks=tuple(
            TaskStatus(
                task=task.id,
                name=task.found.name,
                weight=task.found.weight,
                trials=task.trials,
                failed=task.failed,
                best=task.best,
                state=task.state(desk.knobs),
                costs=costs_of.get(task.id, ()),
            )
            for task in job.tasks
        ),
        untuned=_latency(job.untuned),
        tuned=_latency(job.tuned),
        costs=costs,
        activities=tuple(_activities(desk, job)[:_MOST_ACTIVITIES]),
        bundle=BlobRef(digest=job.delivered.bundle, size=job.delivered.size) if job.delivered else None,
        failure=job.failure,
    )


def _latency(result: Measured | None) -> Latency | None:
    if result is None or not result.latencies:
        return None
    return Latency(
        median=median(result.latencies),
        low=min(result.latencies),
        high=max(result.latencies),
        device=result.device,
        error=result.error,
        conditions=result.conditions,
    )


def _activities(desk: Desk, job: Job) -> list[Activity]:
    if job.phase in _STATE:
        return []
    slots = [
        Activity(resource=f"compute {slot}", doing=step.doing)
        for slot, step in enumerate(desk.compute.slots)
        if step is not None and step.job == job.id
    ]
    devices = [
        Activity(resource=name, doing=doing(window) or "no kernel is ready")
        for name, window in job.windows.items()
    ]
    return slots + devices


def doing(window: Window) -> str:
    """Say in two words what a window's device works on; nothing when it has no kernel."""
    candidate = next(iter(window.outstanding), None)
    return f"measuring {candidate.partition('/')[2]}" if candidate else ""


def _waiting_for(desk: Desk, job: Job) -> str:
    if job.phase is JobPhase.QUEUED:
        if desk.policy.one_job and desk.running:
            return f"job {next(iter(desk.running))} to end"
        pools = desk.fleet.watch(job.order.target).pools.values()
        drained = [device for pool in pools for device in pool.drained.values()]
        return f"a device that offers {job.order.target}{_drained(drained)}"
    if job.phase in _STATE or job.windows or any(step.running for step in job.steps.values()):
        return ""
    pool = job.place
    if job.waiting or any(batch.ready for batch in job.batches.values()):
        drained = list(pool.drained.values())
        if not pool.present:
            return f"a device that offers {job.order.target} to come back{_drained(drained)}"
        return f"a device: all {len(pool.present)} that match are busy or unfit{_drained(drained)}"
    return "a compute slot" if job.steps else ""


def _drained(devices: Sequence[Device]) -> str:
    """Say that devices are drained, by whom and why if it is a single one; nothing where none is."""
    if len(devices) != 1 or (drain := devices[0].drained) is None:
        return f"; {len(devices)} are drained" if devices else ""
    return f"; {devices[0].id} is drained by {drain.by}{f': {drain.reason}' if drain.reason else ''}"


def device_state(device: Device) -> DeviceStanding:
    """Return where a device is, as far as is known."""
    return "unknown" if device.hidden else _DEVICE_STATE[device.phase]


def device_report(device: Device, strikes: int) -> DeviceReport:
    """Return a device as the hub sees it, without its identity; bad after `strikes` failures in a row."""
    window = device.window
    return DeviceReport(
        device=device.id,
        state=device_state(device),
        health=device.health(strikes),
        reason=device.reason[:_LONGEST] if device.strikes else "",
        epoch=device.epoch,
        job=window.job.id if window else None,
        doing=doing(window) if window else "",
        measured=device.measured,
        busy_s=device.busy_s,
        drained=_drain(device.drained),
    )


def _drain(event: DeviceDrained | None) -> Drain | None:
    return None if event is None else Drain(by=event.by, role=event.role, reason=event.reason)
