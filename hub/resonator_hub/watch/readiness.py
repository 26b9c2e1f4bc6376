"""Whether the hub can do all of its work, and if not, what it waits for."""

from __future__ import annotations

from collections.abc import Callable

Check = Callable[[], str]
"""Returns an empty text, or in a sentence what is missing."""


class Readiness:
    """Named conditions, each of which must hold."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}

    def require(self, name: str, check: Check) -> None:
        """Add a condition."""
        self._checks[name] = check

    def unready(self) -> dict[str, str]:
        """Return what is missing, by name; nothing when the hub is ready."""
        return {name: missing for name, check in self._checks.items() if (missing := check())}
