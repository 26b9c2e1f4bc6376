"""Two hubs of one name at one broker, each with a database of its own: the later one notices, and ends.

Both would hear every device and answer every client. Hubs that share a database are no namesakes: of those
one leads at a time, and they tell of the same `origin`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from resonator.bus.peer import Peer, Received
from resonator.errors import Refused
from resonator.messages import HubState


class NameTaken(Refused):
    """Another hub bears this name, and bore it first."""


class Namesake:
    """Hears what is said where this hub's presence is; `announce` says it again.

    Whoever announces himself is heard by the other, who says then that he is there, too: what was retained
    from the past proves nothing.
    """

    def __init__(
        self, peer: Peer, topic: str, own: HubState, announce: Callable[[], Awaitable[None]]
    ) -> None:
        self._topic = topic
        self._own = own
        self._announce = announce
        self._met = asyncio.Event()
        peer.on(HubState, self._heard)

    async def met(self) -> None:
        """Wait for ever, or until an older hub of this name is heard; raises NameTaken then."""
        await self._met.wait()
        raise NameTaken(self._sentence())

    async def _heard(self, received: Received) -> None:
        state, own = received.message, self._own
        if not isinstance(state, HubState) or received.topic != self._topic or received.retained:
            return
        if state.origin == own.origin and state.session >= own.session:
            return  # our own words, or those of a hub that leads our database by now
        if state.status == "online" and state.origin not in ("", own.origin) and _earlier(state, own):
            self._met.set()
        else:
            await self._announce()

    def _sentence(self) -> str:
        name = self._topic.split("/")[-2]
        return (
            f"another hub with a database of its own is called {name!r} at this broker: give this one "
            "another name (RESONATOR_HUB), or have both share a database (RESONATOR_DATABASE_URL)"
        )


def _earlier(one: HubState, other: HubState) -> bool:
    """Whether one hub was there before the other; both come to the same answer."""
    return (one.session, one.origin) < (other.session, other.origin)
