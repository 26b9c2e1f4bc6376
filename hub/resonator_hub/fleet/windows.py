"""Windows as the hub asks for them: granted until answered, closed until confirmed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import structlog

from resonator.bus.peer import Peer, Received, new_id
from resonator.errors import BusUnreachable
from resonator.ids import DeviceId
from resonator.jobspec import Measure
from resonator.messages import Message, WindowClose, WindowClosed, WindowGrant, WindowOpened, WindowRefused
from resonator_hub.door import admit, device_of, to_device
from resonator_hub.fleet.acks import Acks
from resonator_hub.inbox import Inbox
from resonator_hub.scheduler import events
from resonator_hub.scheduler.commands import CloseWindow, OpenWindow
from resonator_hub.tasks import Tasks, happens

log = structlog.get_logger(__name__)
REPEAT_S = 3.0
"""How long an answer may take before the same message is sent again."""
ATTEMPTS = 6


@dataclass(frozen=True)
class _Window:
    epoch: int
    phase: Literal["granting", "open", "closing"]


class Windows:
    """Performs OpenWindow and CloseWindow, and turns the devices' answers into events.

    `opened` is called with the epoch and credit (bytes) of a window before its event is posted, `ended` when
    a window takes no more kernels.
    """

    def __init__(
        self,
        peer: Peer,
        inbox: Inbox,
        acks: Acks,
        *,
        opened: Callable[[DeviceId, int, int], None],
        ended: Callable[[DeviceId], None],
        repeat_s: float = REPEAT_S,
    ) -> None:
        self._peer = peer
        self._inbox = inbox
        self._acks = acks
        self._opened = opened
        self._ended = ended
        self._repeat_s = repeat_s
        self._windows: dict[DeviceId, _Window] = {}
        self._highest: dict[DeviceId, int] = {}
        self._asked_at: dict[DeviceId, float] = {}
        self._round_trips: dict[DeviceId, float] = {}
        self._none = asyncio.Event()
        self._none.set()
        self._leaving = False
        self._tasks = Tasks()
        admit(peer, WindowOpened, ("dev",), self._on_opened)
        admit(peer, WindowRefused, ("dev",), self._on_refused)
        admit(peer, WindowClosed, ("dev",), self._on_closed)

    def granted(self, device: DeviceId) -> int:
        """Return the highest epoch granted to a device in this life of the hub; 0 for none."""
        return self._highest.get(device, 0)

    def round_trip(self, device: DeviceId) -> float | None:
        """Return how long a device took to answer its last grant, in seconds; None before the first."""
        return self._round_trips.get(device)

    def open(self, command: OpenWindow, measure: Measure) -> None:
        """Grant a window; without an answer it counts as refused. After `end_all` nothing is granted."""
        if self._leaving:
            return
        self._highest[command.device] = max(command.epoch, self.granted(command.device))
        self._set(command.device, _Window(command.epoch, "granting"))
        self._asked_at[command.device] = time.monotonic()
        self._tasks.start(command.device, self._grant(command, measure))

    def end(self, command: CloseWindow) -> None:
        """End a window, or take back a grant that is not answered yet."""
        self._ended(command.device)
        self._set(command.device, _Window(command.epoch, "closing"))
        self._tasks.start(command.device, self._close(command.device, command.epoch))

    def lost(self, device: DeviceId) -> None:
        """Forget what was open on a device that is gone."""
        self._over(device)

    async def end_all(self, timeout_s: float) -> None:
        """End every window for good, and wait a while for the devices to confirm."""
        self._leaving = True
        for device, window in list(self._windows.items()):
            if window.phase != "closing":
                self.end(CloseWindow(device, window.epoch))
        if not await happens(self._none, timeout_s):
            log.warning("windows left to end by themselves", devices=sorted(self._windows))

    async def close(self) -> None:
        """Stop granting and closing."""
        await self._tasks.close()

    async def _grant(self, command: OpenWindow, measure: Measure) -> None:
        device, epoch = command.device, command.epoch
        grant = WindowGrant(epoch=epoch, job=command.job, duration=command.duration_s, measure=measure)
        if not await self._answered(device, grant):
            self._over(device)
            self._inbox.post(events.WindowRefused(self._inbox.now(), device, epoch, None, "no answer"))

    async def _close(self, device: DeviceId, epoch: int) -> None:
        if not await self._answered(device, WindowClose(epoch=epoch)):
            log.warning("the device did not confirm the end of its window", device=device, epoch=epoch)
            self._over(device)

    async def _answered(self, device: DeviceId, message: Message) -> bool:
        """Send a message again and again until an answer has changed the window; False when none came."""
        window, message_id = self._windows[device], new_id()
        for _ in range(ATTEMPTS):
            await self._send(device, message, message_id)
            await asyncio.sleep(self._repeat_s)
            # An answer ends this task, too, but a task that waits with a timeout may miss that.
            if self._windows.get(device) is not window:
                return True
        return False

    async def _send(self, device: DeviceId, message: Message, message_id: str) -> None:
        sent = self._peer.send(to_device(device, "window"), message, message_id=message_id)
        try:
            await asyncio.wait_for(sent, self._repeat_s)
        except (BusUnreachable, asyncio.TimeoutError) as error:
            epoch = self.granted(device)
            log.warning("message not sent", type=message.wire, device=device, epoch=epoch, reason=str(error))

    async def _on_opened(self, received: Received, message: WindowOpened) -> None:
        device, epoch = device_of(received), message.epoch
        window = self._windows.get(device)
        if window == _Window(epoch, "granting"):
            self._tasks.stop(device)
            self._set(device, _Window(epoch, "open"))
            self._round_trips[device] = time.monotonic() - self._asked_at[device]
            self._opened(device, epoch, message.credit)
            taken = self._inbox.post(events.WindowOpened(self._inbox.now(), device, epoch))
            self._acks.send_when(taken, device, received.id)
            return
        self._acks.send(device, received.id)
        if window is None and epoch >= self.granted(device):
            # Its grant was given up for unanswered, or was made by an earlier life of this hub.
            self.end(CloseWindow(device, epoch))
        if window is None or window.epoch != epoch:
            self._peer.refuse("unasked", received.topic, f"no window of epoch {epoch} is wanted")

    async def _on_refused(self, received: Received, message: WindowRefused) -> None:
        device = device_of(received)
        window = self._windows.get(device)
        if window is None or window.epoch != message.epoch or window.phase == "open":
            self._acks.send(device, received.id)
            self._peer.refuse("unasked", received.topic, f"no answer for epoch {message.epoch} is awaited")
            return
        self._over(device)
        at, reason = self._inbox.now(), message.reason
        refused = events.WindowRefused(at, device, message.epoch, message.highest, reason)
        self._acks.send_when(self._inbox.post(refused), device, received.id)

    async def _on_closed(self, received: Received, message: WindowClosed) -> None:
        device = device_of(received)
        window = self._windows.get(device)
        if window is None or window.epoch != message.epoch:
            self._acks.send(device, received.id)
            return
        self._over(device)
        closed = events.WindowClosed(self._inbox.now(), device, message.epoch, message.reason)
        self._acks.send_when(self._inbox.post(closed), device, received.id)

    def _set(self, device: DeviceId, window: _Window) -> None:
        self._windows[device] = window
        self._none.clear()

    def _over(self, device: DeviceId) -> None:
        self._ended(device)
        self._windows.pop(device, None)
        self._tasks.stop(device)
        if not self._windows:
            self._none.set()
