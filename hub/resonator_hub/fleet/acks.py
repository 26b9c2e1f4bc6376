"""What the hub has taken for good, told to the devices, which may then forget it."""

from __future__ import annotations

import asyncio

import structlog

from resonator.bus.peer import Peer
from resonator.errors import BusUnreachable
from resonator.ids import DeviceId
from resonator.messages import Ack
from resonator_hub.door import to_device
from resonator_hub.tasks import Tasks

log = structlog.get_logger(__name__)
_MOST = 1000


class Acks:
    """Acknowledges messages, several at a time; a lost acknowledgement is made good by the repetition."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._due: dict[DeviceId, list[str]] = {}
        self._tasks = Tasks()

    def send(self, device: DeviceId, message_id: str) -> None:
        """Acknowledge one message."""
        self._due.setdefault(device, []).append(message_id)
        if device not in self._tasks:
            self._tasks.start(device, self._flush(device))

    def send_when(self, taken: asyncio.Future[None], device: DeviceId, message_id: str) -> None:
        """Acknowledge one message once what it says is journalled; never, if that fails."""

        def settled(future: asyncio.Future[None]) -> None:
            if not future.cancelled() and future.exception() is None:
                self.send(device, message_id)

        taken.add_done_callback(settled)

    async def close(self, timeout_s: float) -> None:
        """Send what is due, for at most `timeout_s` seconds, and stop; the rest will come again."""
        await self._tasks.finish(timeout_s)

    async def _flush(self, device: DeviceId) -> None:
        try:
            while ids := self._due.pop(device, None):
                for start in range(0, len(ids), _MOST):
                    ack = Ack(ids=tuple(ids[start : start + _MOST]))
                    await self._peer.send(to_device(device, "ack"), ack)
        except BusUnreachable as error:
            log.warning("acknowledgements not sent", device=device, reason=str(error))
