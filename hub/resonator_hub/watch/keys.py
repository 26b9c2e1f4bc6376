"""Under which keys a log line names what it is about: the same ones everywhere."""

from __future__ import annotations

KEYS = ("job", "task", "candidate", "device", "epoch")


def keys_of(thing: object) -> dict[str, object]:
    """Return what an event or a command is about; device and epoch together are a window."""
    found = {key: getattr(thing, key, None) for key in KEYS}
    return {key: value for key, value in found.items() if value is not None}
