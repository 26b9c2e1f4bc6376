"""Who is there: the states that devices announce become DeviceSeen and DeviceLost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from resonator.bus.peer import Peer, Received
from resonator.ids import DeviceId, site_of
from resonator.messages import DeviceClaim, DeviceState, Identity, Status, Telemetry
from resonator_hub.door import admit, device_of
from resonator_hub.fleet.links import Links
from resonator_hub.fleet.registry import Registry
from resonator_hub.inbox import Inbox
from resonator_hub.scheduler.events import DeviceLost, DeviceSeen, Offer

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Present:
    """A device's latest session; `seen` is what it last said, None while it is away."""

    session: int
    seen: DeviceSeen | None


class Presence:
    """Hears device states; tells the scheduler of news only, so that the journal does not fill with echoes.

    `granted` is the highest epoch this hub has granted a device: a device that shows that one is no news.
    """

    def __init__(
        self,
        peer: Peer,
        inbox: Inbox,
        registry: Registry,
        links: Links,
        granted: Callable[[DeviceId], int],
        lost: Callable[[DeviceId], None],
    ) -> None:
        self._peer = peer
        self._inbox = inbox
        self._registry = registry
        self._links = links
        self._granted = granted
        self._lost = lost
        self._devices: dict[DeviceId, _Present] = {}
        links.on_change(self._on_link)
        admit(peer, DeviceState, ("dev",), self._on_state)
        admit(peer, DeviceClaim, ("dev",), self._on_claim)
        admit(peer, Telemetry, ("dev",), self._on_telemetry)

    async def _on_state(self, received: Received, state: DeviceState) -> None:
        if received.repeated and not received.retained:
            return
        device = device_of(received)
        present = self._devices.get(device)
        away = present is None or present.seen is None
        # A device that is away may return with a lower session: its state directory was wiped.
        if (
            present is not None
            and state.session < present.session
            and not (away and state.status is not Status.OFFLINE)
        ):
            self._peer.refuse(
                "late", received.topic, f"session {state.session} is over: {present.session} came"
            )
        elif state.status is Status.OFFLINE:
            self._gone(device, state.session)
        elif state.identity is None:
            self._peer.refuse("invalid", received.topic, "device.state: a present device says what it is")
        else:
            self._registry.keep(device, state.identity)
            self._here(device, state, state.identity)

    def put_out(self, device: DeviceId) -> None:
        """Hold a device for gone: it is heard no more."""
        if (present := self._devices.get(device)) is not None:
            self._gone(device, present.session)

    def _gone(self, device: DeviceId, session: int) -> None:
        present = self._devices.get(device)
        news = device in self._registry if present is None else present.seen is not None
        self._devices[device] = _Present(session, None)
        if news:
            self._lost(device)
            self._inbox.post(DeviceLost(self._inbox.now(), device, certain=True))

    def _here(self, device: DeviceId, state: DeviceState, identity: Identity) -> None:
        visible = not self._links.cut(site_of(device))
        seen = _seen(self._inbox.now(), device, state, identity, visible=visible)
        present = self._devices.get(device)
        last = present.seen if present is not None else None
        if (
            last is not None
            and seen == replace(last, at=seen.at, epoch=seen.epoch)
            and seen.epoch <= max(last.epoch, self._granted(device))
        ):
            return
        if last is not None and last.session != seen.session:
            self._lost(device)  # it has restarted: nothing of what was staged there is left
        self._devices[device] = _Present(state.session, seen)
        self._inbox.post(seen)

    def _on_link(self, site: str) -> None:
        """A link was cut, or is there again and the devices are what they last said."""
        at, visible = self._inbox.now(), not self._links.cut(site)
        for device, present in list(self._devices.items()):
            if present.seen is None or site_of(device) != site:
                continue
            seen = replace(present.seen, at=at, visible=visible)
            self._devices[device] = replace(present, seen=seen)
            self._inbox.post(seen if visible else DeviceLost(at, device, certain=False))

    async def _on_claim(self, received: Received, claim: DeviceClaim) -> None:
        log.info("an agent asks for a name", device=device_of(received), instance=claim.instance)

    async def _on_telemetry(self, received: Received, telemetry: Telemetry) -> None:
        self._links.heard(device_of(received))
        self._registry.note(device_of(received), telemetry, self._inbox.now())


def _seen(
    at: float, device: DeviceId, state: DeviceState, identity: Identity, *, visible: bool
) -> DeviceSeen:
    return DeviceSeen(
        at=at,
        device=device,
        session=state.session,
        epoch=state.epoch,
        cpu_model=identity.cpu_model,
        offers=tuple(Offer(offer.kind, offer.target, offer.tag) for offer in identity.offers),
        labels=tuple(sorted(identity.labels.items())),
        available=state.status in {Status.IDLE, Status.RUNNING},
        visible=visible,
    )
