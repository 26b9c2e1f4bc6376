"""What the demo showed: latencies, speed-ups, trials, and how busy the devices were."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from resonator.cli.output import duration, latency
from resonator.messages import JobStatus
from resonator_hub.timeline import Span, busy_share


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one demo; times in seconds, `busy` the share of each device while kernels were tried.

    `wall_s` counts from the start of the demo, `job_s` from the submission of the job to its bundle.
    """

    model: str
    cores: str
    untuned_s: float
    tuned_s: float
    onnxruntime_s: float
    trials: int
    failed_trials: int
    wall_s: float
    job_s: float
    busy: dict[str, float]
    bundle: str
    timeline: str

    @property
    def trials_per_minute(self) -> float:
        """Trials in a minute of the job's whole time."""
        return self.trials / self.job_s * 60

    def to_json(self) -> dict[str, Any]:
        """Return all figures as plain data."""
        return {**asdict(self), "trials_per_minute": self.trials_per_minute}


def make_report(
    *,
    model: Path,
    status: JobStatus,
    timeline: list[Span],
    cores: str,
    onnxruntime_s: float,
    wall_s: float,
    bundle: Path,
    picture: Path,
) -> Report:
    """Put together what the job's last status, its timeline and ONNX Runtime say."""
    assert status.untuned is not None
    assert status.tuned is not None, "a job that succeeded was measured before and after"
    return Report(
        model=model.name,
        cores=cores,
        untuned_s=status.untuned.median,
        tuned_s=status.tuned.median,
        onnxruntime_s=onnxruntime_s,
        trials=status.trials,
        failed_trials=status.failed_trials,
        wall_s=wall_s,
        job_s=status.elapsed,
        busy=_busy(timeline),
        bundle=str(bundle),
        timeline=str(picture),
    )


def _busy(timeline: list[Span]) -> dict[str, float]:
    tried = [span for span in timeline if span.stage == "measure a kernel"]
    if not tried:
        return {}
    start, end = min(span.start for span in tried), max(span.end for span in tried)
    return {
        name: busy_share(timeline, name, start, end) for name in sorted({span.resource for span in tried})
    }


def picture(report: Report) -> Table:
    """Draw the table that ends the demo."""
    table = Table(title=f"{report.model} on {report.cores}", title_justify="left", box=None, padding=(0, 2))
    table.add_column("", style="bold")
    table.add_column("latency", justify="right")
    table.add_column("against untuned", justify="right")
    table.add_column("against ONNX Runtime", justify="right")
    for name, seconds in (
        ("untuned", report.untuned_s),
        ("tuned", report.tuned_s),
        ("ONNX Runtime", report.onnxruntime_s),
    ):
        against = (f"{other / seconds:.2f} x" for other in (report.untuned_s, report.onnxruntime_s))
        table.add_row(name, latency(seconds), *against)
    table.add_section()
    table.add_row("trials", f"{report.trials} ({report.failed_trials} failed)")
    table.add_row("trials per minute", f"{report.trials_per_minute:.1f}")
    for device, share in report.busy.items():
        table.add_row(f"{device} busy while tuning", f"{share:.0%}")
    table.add_row("job", duration(report.job_s))
    table.add_row("whole demo", duration(report.wall_s))
    return table
