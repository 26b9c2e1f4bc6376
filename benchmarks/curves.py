"""Best-so-far curves as a picture: an SVG panel for each operator, both axes logarithmic.

Every seed is a thin line, the median over the seeds a thick one. Colours follow the reader's light or dark
mode.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

Curve = Sequence[tuple[float, float]]
"""Seconds, and the best latency in seconds until then; both grow never and fall never, in this order."""
Panel = Mapping[str, Sequence[Curve]]
"""The curves of each side, one for each seed."""

WIDTH, HEIGHT = 460, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 82, 48
_LIGHT, _DARK = ("#c2410c", "#1d4ed8", "#15803d"), ("#fb923c", "#60a5fa", "#4ade80")
_STEPS = (1, 1.5, 2, 3, 5, 7)


class _Axis:
    """A logarithmic axis from value to pixel."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self.low, self.high = min(values) / 1.1, max(values) * 1.1
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Return round values in between: 1, 1.5, 2, 3, 5 and 7 times the powers of ten."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        values = [step * 10.0**power for power in powers for step in _STEPS]
        return [value for value in values if self.low <= value <= self.high]


def draw(panels: Mapping[str, Panel], title: str) -> str:
    """Draw the panels side by side as an SVG document."""
    width = WIDTH * len(panels)
    sides = list(dict.fromkeys(side for panel in panels.values() for side in panel))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" '
        f'height="{HEIGHT}" font-family="system-ui, sans-serif" font-size="12">',
        _style(),
        f'<rect class="paper" width="{width}" height="{HEIGHT}"/>',
        f'<text x="16" y="24" font-size="15" font-weight="600">{escape(title)}</text>',
        *_legend(sides),
    ]
    for number, (name, panel) in enumerate(panels.items()):
        parts += [f'<g transform="translate({number * WIDTH} 0)">', *_panel(name, panel, sides), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _style() -> str:
    def rules(paper: str, ink: str, grid: str, colours: Sequence[str]) -> str:
        lines = " ".join(f".s{number} {{ stroke: {one} }}" for number, one in enumerate(colours))
        return f".paper {{ fill: {paper} }} text {{ fill: {ink} }} .grid {{ stroke: {grid} }} {lines}"

    light = rules("#ffffff", "#1f2937", "#e5e7eb", _LIGHT)
    dark = rules("#0d1117", "#e6edf3", "#30363d", _DARK)
    return (
        f"<style>{light} @media (prefers-color-scheme: dark) {{ {dark} }} "
        "polyline { fill: none } .thin { stroke-width: 1; stroke-opacity: 0.4 } "
        ".thick { stroke-width: 3 }</style>"
    )


def _legend(sides: Sequence[str]) -> list[str]:
    parts, x = [], 16
    for number, side in enumerate(sides):
        parts.append(f'<polyline class="thick s{number}" points="{x},40 {x + 24},40"/>')
        parts.append(f'<text x="{x + 30}" y="44">{escape(side)}</text>')
        x += 52 + 7 * len(side)
    return parts


def _panel(name: str, panel: Panel, sides: Sequence[str]) -> list[str]:
    points = [point for curves in panel.values() for curve in curves for point in curve]
    across = _Axis([at for at, _ in points], LEFT, WIDTH - RIGHT)
    up = _Axis([best for _, best in points], HEIGHT - BOTTOM, TOP)
    end = max(at for at, _ in points)
    parts = [f'<text x="{LEFT}" y="{TOP - 8}" font-weight="600">{escape(name)}</text>']
    parts += _grid(across, up)
    for side, curves in panel.items():
        number = sides.index(side)
        parts += [_line(curve, across, up, end, f"thin s{number}") for curve in curves]
        parts.append(_line(median_curve(curves), across, up, end, f"thick s{number}"))
    return parts


def _grid(across: _Axis, up: _Axis) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in across.ticks():
        x = across.at(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>')
    for value in up.ticks():
        y = up.at(value)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value * 1e3:g}</text>')
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">seconds since the start</text>')
    side = (TOP + bottom) / 2
    turned = f'transform="rotate(-90 16 {side})"'
    parts.append(f'<text x="16" y="{side}" text-anchor="middle" {turned}>best latency, ms</text>')
    return parts


def _line(curve: Curve, across: _Axis, up: _Axis, end: float, classes: str) -> str:
    """Draw a curve as stairs: the best holds until there is a better one, and then until the end."""
    points, before = [], None
    for at, best in curve:
        if before is not None:
            points.append((at, before))
        points.append((at, best))
        before = best
    if before is not None:
        points.append((end, before))
    path = " ".join(f"{across.at(at):.1f},{up.at(best):.1f}" for at, best in points)
    return f'<polyline class="{classes}" points="{path}"/>'


def median_curve(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """Return the median of the best so far, from when more than half of the curves have begun."""
    found: list[tuple[float, float]] = []
    for at in sorted({at for curve in curves for at, _ in curve}):
        best = sorted(_best(curve, at) for curve in curves)[len(curves) // 2]
        if best < math.inf and (not found or best < found[-1][1]):
            found.append((at, best))
    return found


def _best(curve: Curve, at: float) -> float:
    return min((best for when, best in curve if when <= at), default=math.inf)
