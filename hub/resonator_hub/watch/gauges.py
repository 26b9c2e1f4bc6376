"""How much there is of everything right now, read at the moment somebody asks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from resonator.ids import DeviceId, site_of
from resonator.messages import Telemetry
from resonator_hub.scheduler.census import Census, Standing
from resonator_hub.watch.labels import largest
from resonator_hub.watch.vitals import Signs

AWAY = {"offline", "unknown"}
_BOXES = {
    "boxes_busy": "Boxes that measure, each by the share of its time.",
    "boxes_outbox_messages": "Results on boxes' disks that the hub has not acknowledged.",
    "boxes_staged_kernels": "Kernels on boxes that wait to be measured.",
    "boxes_refused_messages": "What boxes heard and did not act upon, since they started.",
}


@dataclass(frozen=True)
class Sources:
    """Where the numbers come from; every one is asked at each scrape."""

    census: Callable[[], Census]
    inbox: Callable[[], int]
    connected: Callable[[], bool]
    refused: Callable[[], Mapping[str, int]]
    rejected: Callable[[], Mapping[str, int]]
    telemetry: Callable[[DeviceId], Telemetry | None]
    signs: Callable[[], Signs]
    unready: Callable[[], Mapping[str, str]]


class Gauges(Collector):
    """Reads the sources when it is collected; keeps nothing."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def describe(self) -> Iterator[Metric]:
        """Promise nothing beforehand: there may be no hub yet to ask."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield every gauge."""
        sources, census = self._sources, self._sources.census()
        yield _gauge("build_info", "The version that runs.", {version("resonator"): 1}, "version")
        yield from _work(census)
        yield from _fleet(census.devices)
        yield from self._boxes(census.devices)
        yield _gauge("inbox_events", "Events that wait to be journalled.", sources.inbox())
        yield _gauge("bus_connected", "Whether the broker holds the subscriptions.", sources.connected())
        yield _gauge("ready", "Whether the hub can do all of its work.", not sources.unready())
        refused = CounterMetricFamily(
            "resonator_messages_refused", "Messages not acted upon.", labels=["reason"]
        )
        for reason, count in sorted(sources.refused().items()):
            refused.add_metric([reason], count)
        yield refused
        rejected = CounterMetricFamily(
            "resonator_requests_rejected", "Requests answered with no.", labels=["kind"]
        )
        for kind, count in sorted(sources.rejected().items()):
            rejected.add_metric([kind], count)
        yield rejected
        yield from _disk(sources.signs())

    def _boxes(self, devices: tuple[Standing, ...]) -> Iterator[Metric]:
        """Sum up by site what the boxes in sight say of themselves, so that nobody need ask them."""
        sums: dict[str, defaultdict[str, float]] = {name: defaultdict(float) for name in _BOXES}
        hottest: dict[str, float] = {}
        for standing in devices:
            said = self._sources.telemetry(standing.device)
            if said is None or standing.state in AWAY:
                continue
            site = site_of(standing.device)
            told = (said.busy, said.outbox, said.staged, said.refused)
            for name, number in zip(_BOXES, told, strict=True):
                sums[name][site] += number
            if (celsius := said.conditions.temperature_c) is not None:
                hottest[site] = max(hottest.get(site, celsius), celsius)
        for name, text in _BOXES.items():
            yield _gauge(name, text, largest(sums[name]), "site")
        yield _gauge("boxes_hottest_celsius", "The hottest sensor of a site.", largest(hottest), "site")


def _work(census: Census) -> Iterator[Metric]:
    yield _gauge("jobs", "Jobs that have not ended.", census.jobs, "phase")
    yield _gauge("windows", "Windows that were granted and are not over.", census.windows, "state")
    yield _gauge("kernels_ready", "Kernels that wait for a device.", census.ready)
    yield _gauge("kernels_outstanding", "Kernels on devices, without a result.", census.outstanding)
    yield _gauge("compute_slots", "Compute slots.", census.slots)
    busy = sum(count for (_, running), count in census.steps.items() if running)
    yield _gauge("compute_slots_busy", "Compute slots that work.", busy)
    steps = GaugeMetricFamily("resonator_compute_steps", "Compute steps.", labels=["stage", "state"])
    for (stage, running), count in sorted(census.steps.items()):
        steps.add_metric([stage, "running" if running else "waiting"], count)
    yield steps
    ignored = CounterMetricFamily("resonator_events_ignored", "Late and repeated events.", labels=["reason"])
    for reason, count in sorted(census.ignored.items()):
        ignored.add_metric([reason], count)
    yield ignored


def _fleet(devices: tuple[Standing, ...]) -> Iterator[Metric]:
    by_site = Counter((site_of(one.device), one.state) for one in devices)
    sites = largest(Counter(site for site, _ in by_site.elements()))
    family = GaugeMetricFamily("resonator_devices", "Devices ever seen.", labels=["site", "state"])
    for (site, state), count in sorted(by_site.items()):
        if site in sites:
            family.add_metric([site, state], count)
    yield family
    here = Counter(one.hardware for one in devices if one.state not in AWAY)
    yield _gauge("devices_by_hardware", "Devices in sight, by what they are.", largest(here), "hardware")
    health = Counter(one.health for one in devices if one.state not in AWAY)
    yield _gauge("devices_by_health", "Devices in sight, by how they fare.", health, "health")


def _disk(signs: Signs) -> Iterator[Metric]:
    for name, text, value in (
        ("database_bytes", "What the database takes on its disk.", signs.database_bytes),
        ("disk_free_bytes", "Room left where the hub keeps its state.", signs.disk_free_bytes),
    ):
        if value is not None:
            yield _gauge(name, text, value)


def _gauge(name: str, text: str, value: float | Mapping[str, float], label: str = "") -> Metric:
    """Make a gauge: one number, or one for each value of a label."""
    if not isinstance(value, Mapping):
        return GaugeMetricFamily(f"resonator_{name}", text, value=float(value))
    family = GaugeMetricFamily(f"resonator_{name}", text, labels=[label])
    for key, count in sorted(value.items()):
        family.add_metric([key], count)
    return family
