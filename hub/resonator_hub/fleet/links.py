"""Which sites are linked: what the bridges of their brokers say of themselves on the hub's broker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from resonator.bus.peer import Peer
from resonator.bus.topics import Address
from resonator.ids import DeviceId, site_of

log = structlog.get_logger(__name__)
MOST_BRIDGES = 16
"""Of one site; who claims more is not believed."""


@dataclass(frozen=True)
class Link:
    """A bridge, whether it is connected, and since when by the hub's clock, in seconds since the epoch."""

    bridge: str
    up: bool
    since: float


class Links:
    """Hears bridges; a site is cut off while it has bridges and none of them is connected.

    A site without any is a part of the hub's own broker.
    """

    def __init__(self, peer: Peer, now: Callable[[], float]) -> None:
        self._now = now
        self._links: dict[str, dict[str, Link]] = {}
        self._listeners: list[Callable[[str], None]] = []
        peer.on_bridge(self._heard)

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Have the name of a site told when it was cut off, or is linked again."""
        self._listeners.append(listener)

    def cut(self, site: str) -> bool:
        """Whether a site cannot be reached."""
        links = self.of(site)
        return bool(links) and not any(link.up for link in links)

    def heard(self, device: DeviceId) -> None:
        """Note that a device was heard just now: its site is linked, even if the news of that was lost."""
        site = site_of(device)
        if self.cut(site):
            for link in self.of(site):
                self._note(site, link.bridge, up=True)

    def reaches(self, device: DeviceId) -> bool:
        """Whether what is sent to a device has a chance to arrive soon."""
        return not self.cut(site_of(device))

    def of(self, site: str) -> tuple[Link, ...]:
        """Return the links of a site."""
        return tuple(self._links.get(site, {}).values())

    def sites(self) -> tuple[str, ...]:
        """Return the sites that have a bridge, by name."""
        return tuple(sorted(self._links))

    def _heard(self, address: Address, up: bool) -> None:
        self._note(address.site, address.name, up=up)

    def _note(self, site: str, bridge: str, *, up: bool) -> None:
        links = self._links.setdefault(site, {})
        known = links.get(bridge)
        if (known is not None and known.up == up) or (known is None and len(links) >= MOST_BRIDGES):
            return
        was_cut = self.cut(site)
        links[bridge] = Link(bridge, up, self._now())
        log.info("a site is linked" if up else "the link of a site is cut", site=site, bridge=bridge)
        if self.cut(site) != was_cut:
            for listener in self._listeners:
                listener(site)
