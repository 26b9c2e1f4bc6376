"""Resonator: autotuning as a service for edge fleets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resonator.bundle import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import `load` when it is first asked for: `import resonator` stays light."""
    if name == "load":
        from resonator.bundle import load

        return load
    raise AttributeError(f"module 'resonator' has no attribute {name!r}")
