"""Labels of metrics that come from outside: whoever makes names up must not fill a database of metrics."""

from __future__ import annotations

from collections.abc import Mapping

OTHERS = "(others)"
MOST = 500


class Bounded:
    """Lets the first `most` values through; all later ones are `OTHERS`."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        """Return the label for a value."""
        if value not in self._known:
            if len(self._known) >= self._most:
                return OTHERS
            self._known.add(value)
        return value


def largest(counts: Mapping[str, float], most: int = MOST) -> dict[str, float]:
    """Return the `most` largest counts by name, and the sum of the rest under `OTHERS`."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = dict(ranked[:most])
    if rest := ranked[most:]:
        kept[OTHERS] = sum(count for _, count in rest)
    return kept
