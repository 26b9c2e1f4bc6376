"""How the sites fare, told to those who ask: links, queues, lag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median

from resonator.ids import DeviceId, site_of
from resonator.messages import BridgeReport, DeviceReport, SiteList, SiteReport
from resonator_hub.fleet.links import Links
from resonator_hub.fleet.registry import Registry
from resonator_hub.fleet.windows import Windows

MOST_SITES = 2000


class Sites:
    """Puts together what is known of a site; `devices` are the scheduler's reports, `now` the hub's clock."""

    def __init__(
        self,
        links: Links,
        registry: Registry,
        windows: Windows,
        waiting: Callable[[DeviceId], int],
        devices: Callable[[], Sequence[DeviceReport]],
        now: Callable[[], float],
    ) -> None:
        self._links = links
        self._registry = registry
        self._windows = windows
        self._waiting = waiting
        self._devices = devices
        self._now = now

    def report(self) -> SiteList:
        """Return every site that has a bridge or a device: those that are cut off first, then by name."""
        boxes: dict[str, list[DeviceReport]] = {site: [] for site in self._links.sites()}
        for report in self._devices():
            boxes.setdefault(site_of(DeviceId(report.device)), []).append(report)
        sites = sorted(boxes, key=lambda site: (not self._links.cut(site), site))
        return SiteList(sites=tuple(self._site(site, boxes[site]) for site in sites[:MOST_SITES]))

    def _site(self, site: str, boxes: list[DeviceReport]) -> SiteReport:
        devices, now = [DeviceId(box.device) for box in boxes], self._now()
        told = [told for device in devices if (told := self._registry.telemetry(device)) is not None]
        trips = [trip for device in devices if (trip := self._windows.round_trip(device)) is not None]
        heard = [at for device in devices if (at := self._registry.heard(device)) is not None]
        bridges = [
            BridgeReport(name=link.bridge, up=link.up, for_s=now - link.since)
            for link in self._links.of(site)
        ]
        return SiteReport(
            site=site,
            link="direct" if not bridges else "down" if self._links.cut(site) else "up",
            bridges=tuple(bridges),
            devices=dict(Counter(box.state for box in boxes)),
            kernels=sum(map(self._waiting, devices)),
            results=sum(one.outbox for one in told),
            round_trip=median(trips) if trips else None,
            silent_s=now - max(heard) if heard else None,
        )
