"""Reading what the system shows of itself in small files, many of which are missing on many boxes."""

from __future__ import annotations

from pathlib import Path


def text(path: Path) -> str:
    """Return a file's text; empty where it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def number(path: Path, *, scale: float = 1.0) -> float | None:
    """Return the number in a file times `scale`, or None where there is none."""
    try:
        return float(text(path)) * scale
    except ValueError:
        return None
