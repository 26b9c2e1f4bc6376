"""What a broker says of its bridge: a Mosquitto of its own accord, and not in our envelope.

`notifications` in mosquitto.conf(5): retained, "1" while the bridge is connected, "0" by its last will.
"""

from __future__ import annotations

from resonator.errors import MessageInvalid

UP, DOWN = b"1", b"0"


def linked(payload: bytes) -> bool:
    """Read a bridge's presence; raises MessageInvalid where it is none."""
    if payload not in (UP, DOWN):
        raise MessageInvalid(f"a bridge says {UP!r} or {DOWN!r}, not {payload[:20]!r}")
    return payload == UP
