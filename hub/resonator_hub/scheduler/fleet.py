"""Which devices a target means: pools of equal boxes, kept up to date by indexes instead of scans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from resonator.ids import DeviceId, JobId
from resonator.jobspec import TargetSpec
from resonator_hub.scheduler.device import Device
from resonator_hub.scheduler.events import Offer
from resonator_hub.scheduler.ranked import Ranked

if TYPE_CHECKING:
    from resonator_hub.scheduler.batch import Batch
    from resonator_hub.scheduler.job import Job


def hardware_of(device: Device, offer: Offer) -> str:
    """Name the kind of hardware: equal kind, CPU model and exact target measure alike."""
    return f"{offer.kind} {device.cpu_model} {sha256(offer.target.encode()).hexdigest()[:12]}"


def match(spec: TargetSpec, device: Device) -> Offer | None:
    """Return the device's first offer that fulfils every condition of `spec`, if one does."""
    site_and_name = device.id.partition("/")
    if spec.device is not None and spec.device not in {device.id, site_and_name[2]}:
        return None
    labels = dict(device.labels)
    if any(labels.get(key) != value for key, value in spec.labels.items()):
        return None
    for offer in device.offers:
        if spec.kind in {None, offer.kind} and spec.tag in {None, offer.tag}:
            return offer
    return None


@dataclass(slots=True, eq=False)
class Pool:
    """The devices of one kind of hardware that one target spec matches.

    `present` are in sight and not drained, `drained` are kept from work, in sight or not, `idle` are free and
    `lingering` in a window without work; `wants` are batches with ready kernels that any of them may take.
    `kernels` counts those ready or on a device; the clocks are where new jobs begin to count their shares.
    """

    number: int
    watch: Watch
    hardware: str
    offer: Offer
    present: dict[DeviceId, Device] = field(default_factory=dict)
    drained: dict[DeviceId, Device] = field(default_factory=dict)
    idle: Ranked[Device] = field(default_factory=Ranked)
    wants: Ranked[Batch] = field(default_factory=Ranked)
    lingering: dict[DeviceId, Device] = field(default_factory=dict)
    kernels: int = 0
    compute_clock: float = 0.0
    device_clock: float = 0.0

    def queue_s(self, profile_s: float) -> float:
        """Return the seconds of ready work for each device that may be granted."""
        return self.kernels * profile_s / max(1, len(self.present))


@dataclass(slots=True, eq=False)
class Watch:
    """A target that jobs have named: its pools by hardware, and the jobs that wait for a first device."""

    spec: TargetSpec
    pools: dict[str, Pool] = field(default_factory=dict)
    queued: dict[JobId, Job] = field(default_factory=dict)

    def best_pool(self) -> Pool | None:
        """Return the pool with the most devices that may be granted, or None when there is none in any."""
        pools = [pool for pool in self.pools.values() if pool.present]
        return min(pools, key=lambda pool: (-len(pool.present), pool.hardware), default=None)


def _keys_of_device(device: Device) -> Iterator[str]:
    yield f"device {device.id}"
    yield f"device {device.id.partition('/')[2]}"
    for key, value in device.labels:
        yield f"label {key}={value}"
    for offer in device.offers:
        yield f"kind {offer.kind}"
        if offer.tag is not None:
            yield f"tag {offer.tag}"


def _keys_of_spec(spec: TargetSpec) -> Iterator[str]:
    if spec.device is not None:
        yield f"device {spec.device}"
    for key, value in sorted(spec.labels.items()):
        yield f"label {key}={value}"
    if spec.tag is not None:
        yield f"tag {spec.tag}"
    if spec.kind is not None:
        yield f"kind {spec.kind}"


class Fleet:
    """All devices ever seen, and the pools of the targets that jobs have named."""

    def __init__(self) -> None:
        self.devices: dict[DeviceId, Device] = {}
        self._watches: dict[str, Watch] = {}
        self._watches_by_key: dict[str, list[Watch]] = {}
        self._devices_by_key: dict[str, dict[DeviceId, Device]] = {}
        self._pools = 0

    def watch(self, spec: TargetSpec) -> Watch:
        """Return the watch for a target, made on first use."""
        name = spec.model_dump_json()
        watch = self._watches.get(name)
        if watch is None:
            watch = self._watches[name] = Watch(spec)
            self._watches_by_key.setdefault(next(_keys_of_spec(spec)), []).append(watch)
            for device in self._candidates(spec).values():
                self._join(device, watch)
        return watch

    def matches_any(self, spec: TargetSpec) -> bool:
        """Return whether any device ever seen fulfils `spec`; nothing is changed."""
        return any(match(spec, device) for device in self._candidates(spec).values())

    def index(self, device: Device) -> list[Watch]:
        """File a device under what it is now and return the watches that it matches."""
        matched: dict[int, Watch] = {}
        for key in _keys_of_device(device):
            self._devices_by_key.setdefault(key, {})[device.id] = device
            for watch in self._watches_by_key.get(key, ()):
                if id(watch) not in matched and self._join(device, watch):
                    matched[id(watch)] = watch
        return list(matched.values())

    def unindex(self, device: Device) -> None:
        """Take a device out of every index, before what it is changes."""
        for key in _keys_of_device(device):
            self._devices_by_key.get(key, {}).pop(device.id, None)
        for pool in device.pools:
            pool.present.pop(device.id, None)
            pool.drained.pop(device.id, None)
            pool.idle.remove(device.id)
        device.pools.clear()

    def place(self, device: Device) -> None:
        """Bring the pools up to date with a device: whether it is there, and whether it may be granted."""
        for pool in device.pools:
            _file(device, pool)
            if not device.usable:
                pool.idle.remove(device.id)

    def offers(self, most: int) -> dict[str, int]:
        """Count the devices of each kind, tag, label and name, most common first, for sentences to users."""
        counts = [
            (-len(devices), key)
            for key, devices in self._devices_by_key.items()
            if devices and not (key.startswith("device ") and "/" in key)
        ]
        return {key: -count for count, key in sorted(counts)[:most]}

    def _candidates(self, spec: TargetSpec) -> dict[DeviceId, Device]:
        found = [self._devices_by_key.get(key, {}) for key in _keys_of_spec(spec)]
        return min(found, key=len)

    def _join(self, device: Device, watch: Watch) -> bool:
        offer = match(watch.spec, device)
        if offer is None:
            return False
        hardware = hardware_of(device, offer)
        pool = watch.pools.get(hardware)
        if pool is None:
            self._pools += 1
            pool = watch.pools[hardware] = Pool(
                self._pools, watch, hardware, offer, device_clock=device.clock
            )
        device.pools.append(pool)
        _file(device, pool)
        if device.usable and not device.wants:
            pool.idle.put(device.id, (device.strikes,), device)
        return True


def _file(device: Device, pool: Pool) -> None:
    """Put a device where it is looked for: among those that are drained, or those in sight."""
    for place, belongs in (
        (pool.drained, device.drained is not None),
        (pool.present, device.drained is None and device.present),
    ):
        if belongs:
            place[device.id] = device
        else:
            place.pop(device.id, None)
