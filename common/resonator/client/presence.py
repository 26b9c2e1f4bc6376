"""Which hubs are online, as their retained presence says."""

from __future__ import annotations

import asyncio

import structlog

from resonator.bus.peer import Received
from resonator.errors import BusUnreachable
from resonator.messages import HubState

log = structlog.get_logger(__name__)


class HubPresence:
    """What has been heard of hubs."""

    def __init__(self) -> None:
        self._states: dict[str, HubState] = {}
        self._online = asyncio.Event()

    async def heard(self, received: Received) -> None:
        """Note a hub's presence; the end of an older session is a late will and says nothing.

        Nor does such a session while a newer one is there; once that is gone, it was a namesake's.
        """
        state = received.message
        assert isinstance(state, HubState)
        name = f"{received.address.site}/{received.address.name}"
        known = self._states.get(name)
        returned = known is not None and (known.status, state.status) == ("offline", "online")
        if known is not None and state.session < known.session and not returned:
            return
        self._states[name] = state
        if known is not None and known.status != state.status:
            log.warning(f"hub {name} is {state.status}")
        if any(state.status == "online" for state in self._states.values()):
            self._online.set()
        else:
            self._online.clear()

    async def wait_online(self, broker: str, *, patience: float) -> None:
        """Return once a hub is online; raises `BusUnreachable` after `patience` seconds without one."""
        try:
            await asyncio.wait_for(self._online.wait(), patience)
        except asyncio.TimeoutError:
            gone = ", ".join(f"{name} has gone offline" for name in sorted(self._states))
            raise BusUnreachable(
                f"no hub is online on {broker}{f' ({gone})' if gone else ''}; start one with `resonator hub`"
            ) from None
