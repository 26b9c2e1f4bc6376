"""Jobs and devices as rich tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from resonator.cli.costs import spent
from resonator.cli.output import duration, latency, size
from resonator.messages import (
    Activity,
    DeviceReport,
    Identity,
    JobState,
    JobStatus,
    Latency,
    SiteReport,
    TaskStatus,
)

_STATE_STYLES = {
    JobState.QUEUED: "yellow",
    JobState.RUNNING: "cyan",
    JobState.SUCCEEDED: "green",
    JobState.FAILED: "red",
    JobState.CANCELED: "magenta",
}


def jobs_table(statuses: Sequence[JobStatus]) -> RenderableType:
    """Draw one row a job."""
    table = _table("job", "state", "trials", "best so far", "untuned", "tuned", "time", "now")
    for status in statuses:
        table.add_row(
            status.job,
            _state(status.state),
            f"{status.trials}/{status.budget}",
            latency(status.estimate),
            latency(status.untuned.median if status.untuned else None),
            latency(status.tuned.median if status.tuned else None),
            duration(status.elapsed),
            doing(status),
        )
    return table if statuses else Text("no jobs yet; `resonator submit model.onnx` makes one")


def doing(status: JobStatus) -> str:
    """Say in a few words what a job waits for, does, or failed of, and why its search ended."""
    if status.failure is not None:
        return str(status.failure)
    if status.waiting_for:
        return f"waits for {status.waiting_for}"
    if status.state.ended:
        return f"search ended: {status.stopped}" if status.stopped else ""
    return status.phase


def job_picture(status: JobStatus, *, most_tasks: int = 100) -> RenderableType:
    """Draw all that is known of a job; of its tasks the first `most_tasks`."""
    parts: list[RenderableType] = [_headline(status), _progress(status)]
    if status.untuned or status.tuned:
        parts.append(_latencies(status))
    if status.activities:
        parts.append(_activities(status.activities))
    if status.tasks:
        parts.append(_tasks(status.tasks[:most_tasks]))
        if len(status.tasks) > most_tasks:
            parts.append(Text(f"and {len(status.tasks) - most_tasks} more tasks", style="dim"))
    if status.bundle is not None:
        parts.append(Text(f"bundle: {size(status.bundle.size)}; `resonator fetch {status.job} -o FILE`"))
    return Group(*parts)


def _headline(status: JobStatus) -> Text:
    text = Text.assemble((status.job, "bold"), "  ", _state(status.state), f"  {duration(status.elapsed)}")
    if status.target:
        text.append(f"  on {status.target}", style="dim")
    if what := doing(status):
        text.append(f"\n{what}", style="red" if status.failure else "")
    return text


def _progress(status: JobStatus) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    row.add_row(
        ProgressBar(total=max(status.budget, 1), completed=status.trials, width=40),
        f"{status.trials}/{status.budget} trials",
        f"({status.failed_trials} failed)" if status.failed_trials else "",
        f"best so far {latency(status.estimate)}" if status.estimate is not None else "",
    )
    return row


def _latencies(status: JobStatus) -> Table:
    table = _table("model", "median", "spread", "speed-up", "error", "device")
    for name, measured in (("untuned", status.untuned), ("tuned", status.tuned)):
        if measured is not None:
            table.add_row(name, *_latency_row(measured, status.untuned))
    return table


def _latency_row(measured: Latency, untuned: Latency | None) -> tuple[str, ...]:
    speedup = untuned.median / measured.median if untuned and measured.median else None
    return (
        latency(measured.median),
        f"{latency(measured.low)} to {latency(measured.high)}",
        "-" if speedup is None else f"{speedup:.2f} x",
        "-" if measured.error is None else f"{measured.error:.1e}",
        measured.device,
    )


def _activities(activities: Sequence[Activity]) -> Table:
    table = _table("resource", "doing")
    for activity in activities:
        table.add_row(activity.resource, activity.doing)
    return table


def _tasks(tasks: Sequence[TaskStatus]) -> Table:
    table = _table("task", "operator", "times", "trials", "failed", "best", "spent", "search")
    for task in tasks:
        table.add_row(
            task.task.rpartition("/")[2],
            task.name,
            str(task.weight),
            str(task.trials),
            str(task.failed),
            latency(task.best),
            spent(task.costs),
            "" if task.state == "searching" else task.state,
        )
    return table


def devices_table(reports: Sequence[DeviceReport]) -> RenderableType:
    """Draw one row a device."""
    table = _table("device", "state", "health", "targets", "processor", "labels", "measured", "now")
    for report in reports:
        identity = report.identity
        table.add_row(
            report.device,
            report.state,
            report.health,
            ", ".join(offer.tag or offer.kind for offer in identity.offers) if identity else "-",
            identity.cpu_model if identity else "-",
            _labels(identity),
            str(report.measured),
            report.doing or drained(report) or report.reason,
        )
    return table if reports else Text("no devices yet; `resonator agent --name NAME` on a box adds it")


def sites_table(reports: Sequence[SiteReport]) -> RenderableType:
    """Draw one row a site."""
    table = _table("site", "link", "boxes", "kernels out", "results waiting", "round trip", "last heard")
    for report in reports:
        table.add_row(
            report.site,
            _link(report),
            ", ".join(f"{count} {state}" for state, count in sorted(report.devices.items())) or "-",
            str(report.kernels),
            str(report.results),
            latency(report.round_trip),
            "-" if report.silent_s is None else f"{duration(report.silent_s)} ago",
        )
    return (
        table if reports else Text("no sites yet; `resonator site config NAME` configures the broker of one")
    )


def _link(report: SiteReport) -> str:
    """Say how a site is linked, and for how long."""
    if not report.bridges:
        return "direct"
    states = [f"{'up' if one.up else 'DOWN'} {duration(one.for_s)}" for one in report.bridges]
    if len(states) == 1:
        return states[0]
    return ", ".join(f"{one.name} {state}" for one, state in zip(report.bridges, states, strict=True))


def drained(report: DeviceReport) -> str:
    """Say who drained a device and why; nothing when nobody did."""
    if report.drained is None:
        return ""
    why = f": {report.drained.reason}" if report.drained.reason else ""
    return f"drained by {report.drained.by}{'' if report.drained.role else ' (not signed)'}{why}"


def device_picture(report: DeviceReport) -> RenderableType:
    """Draw all that is known of a device."""
    table = Table.grid(padding=(0, 2))
    for name, value in _device_rows(report):
        if value:
            table.add_row(Text(name, style="dim"), value)
    return table


def _device_rows(report: DeviceReport) -> list[tuple[str, str]]:
    rows = [
        ("device", report.device),
        ("state", report.state),
        ("health", f"{report.health} ({report.reason})" if report.reason else report.health),
        ("drained", drained(report)),
        ("job", report.job or ""),
        ("now", report.doing),
        ("measured", f"{report.measured} in {duration(report.busy_s)}"),
        ("window epoch", str(report.epoch)),
        ("refused", f"{report.refused} messages" if report.refused else ""),
    ]
    return rows + (_identity_rows(report.identity) if report.identity else [])


def _identity_rows(identity: Identity) -> list[tuple[str, str]]:
    used = ", ".join(map(str, identity.cores_used))
    return [
        ("processor", f"{identity.cpu_model} ({identity.architecture})"),
        ("cores", f"{identity.cores}, used for measurements: {used}"),
        ("memory", size(identity.memory)),
        ("gpus", ", ".join(identity.gpus)),
        ("labels", _labels(identity)),
        *((f"target {offer.kind}", offer.tag or offer.target) for offer in identity.offers),
        ("software", f"resonator {identity.agent_version}, tvm {identity.tvm_version}"),
        ("extensions", " ".join(identity.extensions)),
    ]


def _labels(identity: Identity | None) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(identity.labels.items())) if identity else ""


def _state(state: JobState) -> Text:
    return Text(state.value, style=_STATE_STYLES[state])


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == columns[0])
    return table
