"""A job as a picture: which stage ran when on which resource, drawn as SVG from the hub's journal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from resonator.ids import JobId, model_id
from resonator_hub.scheduler.events import (
    BuildFailed,
    BundleDelivered,
    CandidatesSelected,
    Event,
    KernelBuilt,
    Measured,
    ModelCompiled,
    ModelUpdated,
    TasksExtracted,
)

COLOURS = {
    "extract": "#76b7b2",
    "select": "#4e79a7",
    "build": "#f28e2b",
    "update": "#e15759",
    "compile": "#59a14f",
    "deliver": "#edc948",
    "measure a kernel": "#b07aa1",
    "measure the model": "#9c755f",
}
"""Every stage with its colour, in the order of the legend."""

_STEPS = (
    TasksExtracted,
    CandidatesSelected,
    KernelBuilt,
    BuildFailed,
    ModelUpdated,
    ModelCompiled,
    BundleDelivered,
)
_STAGES = dict(
    zip(_STEPS, ("extract", "select", "build", "build", "update", "compile", "deliver"), strict=True)
)
_SLACK_S = 0.05
"""How far two steps of one slot may seem to overlap: the journal's times are those of their reports."""

WIDTH, LEFT, ROW, TOP, BOTTOM = 1200, 150, 30, 74, 40
_TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Span:
    """A stage on a resource (a compute slot or a device), from `start` to `end` in seconds."""

    resource: str
    stage: str
    start: float
    end: float
    what: str = ""


def spans(events: Iterable[Event], job: JobId) -> list[Span]:
    """Read a job's spans from the events of a journal: the compute slots first, then the devices."""
    own = [event for event in events if getattr(event, "job", None) == job]
    return [*_computed(own), *_measured(own, job)]


def _computed(events: Sequence[Event]) -> list[Span]:
    steps = [
        (event.at - event.took_s, event.at, _STAGES[type(event)], _subject(event))
        for event in events
        if isinstance(event, _STEPS)
    ]
    free_at: list[float] = []
    placed = []
    for start, end, stage, what in sorted(steps):
        # The journal does not say which slot did it: the first that was free is as good as the true one.
        slot = next((slot for slot, at in enumerate(free_at) if at <= start + _SLACK_S), len(free_at))
        free_at[slot : slot + 1] = [end]
        placed.append(Span(f"compute {slot}", stage, start, end, what))
    return sorted(placed, key=lambda span: (int(span.resource.split()[1]), span.start))


def _measured(events: Sequence[Event], job: JobId) -> list[Span]:
    models = {model_id(job, tuned=tuned) for tuned in (False, True)}
    found = [
        Span(
            event.device,
            "measure the model" if event.candidate in models else "measure a kernel",
            event.at - event.device_time_s,
            event.at,
            event.candidate,
        )
        for event in events
        if isinstance(event, Measured)
    ]
    return sorted(found, key=lambda span: (span.resource, span.start))


def _subject(event: Event) -> str:
    return str(getattr(event, "candidate", None) or getattr(event, "task", None) or "")


def busy_share(timeline: Sequence[Span], resource: str, start: float, end: float) -> float:
    """Return the share (0..1) of `start`..`end` in which the resource had something to do."""
    busy, until = 0.0, start
    for span in sorted((span for span in timeline if span.resource == resource), key=lambda span: span.start):
        begin = max(span.start, until)
        finish = min(span.end, end)
        if finish > begin:
            busy += finish - begin
            until = finish
    return busy / (end - start) if end > start else 0.0


def draw(timeline: Sequence[Span], title: str) -> str:
    """Draw spans as an SVG document: a row for each resource, a colour for each stage, time to the right."""
    start = min((span.start for span in timeline), default=0.0)
    length = max(max((span.end for span in timeline), default=0.0) - start, 1.0)
    rows = list(dict.fromkeys(span.resource for span in timeline))
    height = TOP + ROW * len(rows) + BOTTOM
    scale = (WIDTH - LEFT - 20) / length
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="26" font-size="16" font-weight="600">{escape(title)}</text>',
        *_legend(timeline),
        *_axis(length, scale, height),
        *(_label(row, index) for index, row in enumerate(rows)),
        *(_bar(span, rows.index(span.resource), start, scale) for span in timeline),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _legend(timeline: Sequence[Span]) -> list[str]:
    used = {span.stage for span in timeline}
    parts, x = [], 16
    for stage, colour in COLOURS.items():
        if stage in used:
            parts.append(f'<rect x="{x}" y="42" width="12" height="12" fill="{colour}"/>')
            parts.append(f'<text x="{x + 17}" y="52">{stage}</text>')
            x += 38 + 7 * len(stage)
    return parts


def _axis(length: float, scale: float, height: int) -> list[str]:
    step = next((tick for tick in _TICKS if length / tick <= 12), _TICKS[-1])
    parts = []
    for tick in range(0, int(length) + 1, step):
        x = f"{LEFT + tick * scale:.1f}"
        parts.append(f'<line x1="{x}" y1="{TOP - 6}" x2="{x}" y2="{height - 28}" stroke="#dddddd"/>')
        parts.append(
            f'<text x="{x}" y="{height - 12}" text-anchor="middle" fill="#555555">{_time(tick)}</text>'
        )
    return parts


def _time(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60}:{seconds % 60:02} min"


def _label(resource: str, row: int) -> str:
    y = TOP + ROW * row + ROW * 0.62
    return f'<text x="{LEFT - 10}" y="{y:.0f}" text-anchor="end">{escape(resource)}</text>'


def _bar(span: Span, row: int, start: float, scale: float) -> str:
    x = LEFT + (span.start - start) * scale
    width = max((span.end - span.start) * scale, 0.4)
    took = f"{span.stage} {span.what}: {span.end - span.start:.2f} s".replace(" :", ":")
    return (
        f'<rect x="{x:.1f}" y="{TOP + ROW * row + 4}" width="{width:.1f}" height="{ROW - 8}" '
        f"fill={quoteattr(COLOURS[span.stage])}><title>{escape(took)}</title></rect>"
    )
