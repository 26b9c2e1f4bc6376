"""What bridges say of themselves: a site that is cut off has devices that are unknown, not dead."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.shell import BOX, SITE, Shell, shell, state
from resonator.bus import topics
from resonator.ids import DeviceId, JobId
from resonator.jobspec import Measure
from resonator.messages import DeviceReport, SiteReport, Status, Telemetry, WindowOpened
from resonator_hub.fleet import Acks, Links, Presence, Registry, Sites, Windows
from resonator_hub.scheduler import events
from resonator_hub.scheduler.commands import OpenWindow

DEVICE = DeviceId(f"{SITE}/{BOX}")
BRIDGE = topics.bridge_state(SITE, "gate")
SPARE = topics.bridge_state(SITE, "spare")


@dataclass
class Cloud:
    shell: Shell
    links: Links
    windows: Windows
    sites: Sites
    reports: list[DeviceReport]

    async def bridge(self, payload: bytes, topic: str = BRIDGE) -> None:
        await self.shell.hear_bytes(topic, payload, retain=True)

    def site(self) -> SiteReport:
        (report,) = self.sites.report().sites
        return report


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    async with shell(tmp_path) as base:
        acks, registry = Acks(base.peer), Registry(base.database)
        links = Links(base.peer, base.inbox.now)
        windows = Windows(base.peer, base.inbox, acks, opened=lambda *_: None, ended=lambda _: None)
        Presence(base.peer, base.inbox, registry, links, windows.granted, windows.lost)
        reports = [DeviceReport(device=DEVICE, state="unknown")]
        sites = Sites(links, registry, windows, lambda _: 3, lambda: reports, base.inbox.now)
        yield Cloud(base, links, windows, sites, reports)
        await windows.close()
        await acks.close(1.0)


async def test_a_cut_link_hides_its_devices_and_a_restored_one_shows_them(cloud: Cloud) -> None:
    await cloud.bridge(b"1")
    await cloud.shell.device_says("state", state())
    await cloud.bridge(b"0")
    await cloud.bridge(b"0")
    await cloud.bridge(b"1")
    seen, lost, back = cloud.shell.events
    assert isinstance(seen, events.DeviceSeen)
    assert seen.visible
    assert lost == events.DeviceLost(lost.at, DEVICE, certain=False)
    assert isinstance(back, events.DeviceSeen)
    assert (back.session, back.visible) == (seen.session, True)


async def test_what_is_retained_of_a_device_behind_a_cut_link_shows_it_hidden(cloud: Cloud) -> None:
    await cloud.bridge(b"0")
    await cloud.shell.device_says("state", state())
    (seen,) = cloud.shell.events
    assert isinstance(seen, events.DeviceSeen)
    assert not seen.visible


async def test_a_device_that_died_behind_a_cut_link_does_not_come_back_with_it(cloud: Cloud) -> None:
    await cloud.shell.device_says("state", state())
    await cloud.bridge(b"0")
    await cloud.shell.device_says("state", state(status=Status.OFFLINE))
    await cloud.bridge(b"1")
    assert [type(event).__name__ for event in cloud.shell.events] == [
        "DeviceSeen",
        "DeviceLost",
        "DeviceLost",
    ]


async def test_a_site_with_two_bridges_is_cut_off_when_both_are_down(cloud: Cloud) -> None:
    await cloud.shell.device_says("state", state())
    await cloud.bridge(b"1")
    await cloud.bridge(b"1", SPARE)
    await cloud.bridge(b"0")
    assert cloud.links.reaches(DEVICE)
    assert len(cloud.shell.events) == 1
    await cloud.bridge(b"0", SPARE)
    assert not cloud.links.reaches(DEVICE)
    assert len(cloud.shell.events) == 2


async def test_a_device_that_is_heard_shows_that_its_site_is_linked_though_the_news_was_lost(
    cloud: Cloud,
) -> None:
    await cloud.shell.device_says("state", state())
    await cloud.bridge(b"0")
    await cloud.shell.device_says("telemetry", Telemetry(epoch=0))
    assert cloud.links.reaches(DEVICE)
    *_, back = cloud.shell.events
    assert isinstance(back, events.DeviceSeen)
    assert back.visible


@pytest.mark.parametrize("payload", [b"", b"2", b"11", b"\x81\xa1v\x01", b"0" * 10_000])
async def test_what_no_bridge_says_is_refused(cloud: Cloud, payload: bytes) -> None:
    await cloud.bridge(payload)
    assert cloud.shell.peer.refused["invalid"] == 1
    assert cloud.links.sites() == ()


async def test_a_site_claims_no_more_bridges_than_a_site_has(cloud: Cloud) -> None:
    for number in range(40):
        await cloud.bridge(b"1", topics.bridge_state(SITE, f"b{number}"))
    assert len(cloud.links.of(SITE)) == 16


async def test_a_site_is_reported_with_link_queues_and_lag(cloud: Cloud) -> None:
    # Given a site whose only device has answered a grant, and then holds results back
    await cloud.bridge(b"1")
    await cloud.shell.device_says("state", state())
    cloud.windows.open(OpenWindow(DEVICE, JobId("j"), 1, 60.0), Measure())
    await cloud.shell.device_says("window", WindowOpened(epoch=1, job="j", credit=1))
    await cloud.shell.device_says("telemetry", Telemetry(epoch=1, outbox=7))
    await cloud.bridge(b"0")
    # Then
    site = cloud.site()
    assert (site.link, [bridge.name for bridge in site.bridges]) == ("down", ["gate"])
    assert (site.devices, site.kernels, site.results) == ({"unknown": 1}, 3, 7)
    assert site.round_trip is not None
    assert site.silent_s is not None


async def test_a_site_on_the_hubs_own_broker_has_no_link(cloud: Cloud) -> None:
    site = cloud.site()
    assert (site.link, site.bridges, site.round_trip, site.silent_s) == ("direct", (), None, None)
