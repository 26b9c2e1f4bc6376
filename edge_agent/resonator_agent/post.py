"""What leaves the agent: some of it for good once acknowledged (the outbox), the rest as it happens."""

from __future__ import annotations

import asyncio

import structlog

from resonator.bus import codec, topics
from resonator.bus.peer import Peer, new_id
from resonator.errors import ResonatorError
from resonator.messages import (
    BlobRequest,
    DeviceClaim,
    DeviceState,
    KernelResult,
    Message,
    Telemetry,
    WindowClosed,
    WindowOpened,
    WindowRefused,
)
from resonator_agent.attempts import FIRST_S, Attempts
from resonator_agent.outbox import Kept, Outbox

log = structlog.get_logger(__name__)

RESEND_S = FIRST_S
"""How often it is looked whether something has to be sent again."""
_AT_ONCE = 200
"""How many messages are sent again in one go: a hub that comes back is not to be flooded."""

_CHANNEL: dict[type[Message], str] = {
    DeviceState: "state",
    DeviceClaim: "state",
    WindowOpened: "window",
    WindowRefused: "window",
    WindowClosed: "window",
    KernelResult: "result",
    Telemetry: "telemetry",
    BlobRequest: "blob",
}


class Post:
    """Sends a device's messages on their topics, in the order they were given, without making anyone wait."""

    def __init__(self, peer: Peer, outbox: Outbox, site: str, device: str):
        self._peer = peer
        self._outbox = outbox
        self._site = site
        self._device = device
        self._sending: set[asyncio.Task[None]] = set()
        self._attempts = Attempts()
        self._links: dict[str, bool] = {}

    def send(self, message: Message) -> None:
        """Send a message; results and closed windows are kept on disk first, until they are acknowledged."""
        if isinstance(message, (KernelResult, WindowClosed)):
            kept = self._keep(message)
            self._dispatch(message, kept.id)
        else:
            self._dispatch(message, None)

    def acknowledged(self, ids: tuple[str, ...]) -> None:
        """Forget what the hub has taken for good."""
        self._outbox.acknowledge(ids)
        for message_id in ids:
            self._attempts.forget(message_id)

    def resend(self) -> None:
        """Send again, with the same ids, what was not acknowledged in time."""
        if not self._peer.bus.connected:
            return
        now, linked = asyncio.get_running_loop().time(), not self._is_cut
        overdue = [kept for kept in self._outbox.pending() if self._attempts.due(kept.id, now, linked=linked)]
        for kept in overdue[:_AT_ONCE]:
            self._dispatch(codec.decode(kept.payload).message, kept.id)

    def resend_result(self, epoch: int, candidate: str) -> None:
        """Send one candidate's result again; nothing where the hub has acknowledged it."""
        for kept in self._outbox.about(_subject(epoch, candidate)):
            self._dispatch(codec.decode(kept.payload).message, kept.id)

    def forget_attempts(self) -> None:
        """Hold everything pending for overdue: what was sent on a lost connection may be lost with it."""
        self._attempts.start_over()

    def note_link(self, bridge: str, up: bool) -> None:
        """Note whether a bridge joins the site's broker to the hub's; while none does, little is repeated.

        What has been sent waits at the site's broker, which would keep every repetition, too.
        """
        was_cut = self._is_cut
        self._links[bridge] = up
        if was_cut and not self._is_cut:
            self._attempts.expect(asyncio.get_running_loop().time())
        if was_cut != self._is_cut:
            log.info("the link of this site is cut" if self._is_cut else "this site is linked", bridge=bridge)

    @property
    def _is_cut(self) -> bool:
        return bool(self._links) and not any(self._links.values())

    async def flush(self, timeout_s: float) -> None:
        """Wait until everything given so far is sent, at most `timeout_s` seconds; give up the rest."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=timeout_s)
        for task in list(self._sending):
            task.cancel()
        if self._sending:
            await asyncio.wait(self._sending)

    def __len__(self) -> int:
        return len(self._outbox)

    def _keep(self, message: KernelResult | WindowClosed) -> Kept:
        message_id = new_id()
        about = message.candidate if isinstance(message, KernelResult) else ""
        payload = codec.encode(message, id=message_id, source=self._peer.source)
        kept = Kept(message_id, _CHANNEL[type(message)], _subject(message.epoch, about), payload)
        dropped = self._outbox.add(kept)
        if dropped:
            log.warning("the outbox is full, the oldest messages gave way", dropped=dropped)
        return kept

    def _dispatch(self, message: Message, message_id: str | None) -> None:
        if message_id is not None:
            self._attempts.sent(message_id, asyncio.get_running_loop().time())
        task = asyncio.ensure_future(self._publish(message, message_id))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _publish(self, message: Message, message_id: str | None) -> None:
        topic = topics.device_up(self._site, self._device, _CHANNEL[type(message)])
        retain = isinstance(message, DeviceState)
        qos = 0 if isinstance(message, Telemetry) else 1
        try:
            await self._peer.send(topic, message, message_id=message_id, retain=retain, qos=qos)
        except ResonatorError as error:
            # Whatever matters is sent again: from the outbox, at the next connection, or when asked again.
            log.debug("not sent", message=message.wire, reason=str(error))


def _subject(epoch: int, candidate: str) -> str:
    return f"{epoch}:{candidate}"
