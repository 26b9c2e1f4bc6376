"""Where messages come in: each kind only from those who may send it, and no handler can end the hub."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

import structlog

from resonator.bus import topics
from resonator.bus.peer import Peer, Received
from resonator.errors import ResonatorError
from resonator.ids import DeviceId, device_id
from resonator.messages import Message

log = structlog.get_logger(__name__)
M = TypeVar("M", bound=Message)
FRESH_S = 600.0
"""How far apart the clocks of hub and client may be; a request is forgotten no sooner."""


def admit(
    peer: Peer,
    kind: type[M],
    senders: tuple[Literal["dev", "client"], ...],
    handler: Callable[[Received, M], Awaitable[None]],
) -> None:
    """Have messages of a kind handled when one of `senders` sent them on a topic of its own.

    From anyone else they are refused and counted, and so are those that the handler cannot take.
    """

    async def checked(received: Received) -> None:
        address, message = received.address, received.message
        if address.kind not in senders or address.direction != "up" or not isinstance(message, kind):
            peer.refuse("misplaced", received.topic, f"{kind.wire} is not sent on such a topic")
            return
        try:
            await handler(received, message)
        except ResonatorError as error:
            peer.refuse("unusable", received.topic, str(error))
        except Exception as error:
            peer.refuse("error", received.topic, repr(error))
            log.exception("a message could not be handled", type=kind.wire, topic=received.topic)

    peer.on(kind, checked)


def staleness(received: Received, now: float) -> str | None:
    """Say why a signed request is too old to act upon, or None: somebody may have kept it to say it again.

    `now` is the wall clock's. What is not signed proves nothing anyhow.
    """
    if received.party is None:
        return None
    if received.at is None:
        return "the request does not say when it was made"
    if abs(now - received.at) <= FRESH_S:
        return None
    apart = f"{abs(now - received.at) / 60:.0f} minutes {'old' if received.at < now else 'ahead of time'}"
    return f"the request is {apart} by the hub's clock: set the clocks of both machines"


def device_of(received: Received) -> DeviceId:
    """Return the device on whose topic a message came."""
    return device_id(received.address.site, received.address.name)


def to_device(device: DeviceId, channel: str) -> str:
    """Spell a topic to a device; `channel` is one of `topics.DEVICE_DN`."""
    site, _, name = device.partition("/")
    return topics.device_dn(site, name, channel)
