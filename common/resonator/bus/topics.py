"""The only module that spells or parses topics.

`up` and `dn` are also the direction in which a site's bridge carries a topic: no loops, one-line ACLs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from resonator.errors import MessageInvalid
from resonator.ids import is_name

ROOT = "resonator/v1"
Kind = Literal["dev", "hub", "client", "jobs", "bridge"]
DEVICE_UP = ("state", "window", "result", "telemetry", "blob", "trust")
DEVICE_DN = ("window", "kernel", "ack", "blob", "trust")
CLIENT_UP = ("request", "blob")
CLIENT_DN = ("answer", "blob")


@dataclass(frozen=True, slots=True)
class Address:
    """What a topic says: whose it is, in which direction it goes, and what it carries."""

    site: str
    kind: Kind
    name: str
    direction: Literal["up", "dn", ""]
    channel: str


def device_up(site: str, device: str, channel: str) -> str:
    """Spell a topic from a device to the hub; `channel` is one of `DEVICE_UP`."""
    return _spell(site, "dev", device, "up", channel)


def device_dn(site: str, device: str, channel: str) -> str:
    """Spell a topic from the hub to a device; `channel` is one of `DEVICE_DN`."""
    return _spell(site, "dev", device, "dn", channel)


def client_up(site: str, client: str, channel: str = "request") -> str:
    """Spell a topic from a client to the hub; `channel` is one of `CLIENT_UP`."""
    return _spell(site, "client", client, "up", channel)


def client_dn(site: str, client: str, channel: str = "answer") -> str:
    """Spell a topic from the hub to a client; `channel` is one of `CLIENT_DN`."""
    return _spell(site, "client", client, "dn", channel)


def hub_state(site: str, hub: str) -> str:
    """Spell the topic of a hub's retained presence."""
    return _spell(site, "hub", hub, "", "state")


def bridge_state(site: str, bridge: str) -> str:
    """Spell the topic on which the broker of a site says, retained, whether it is linked (`bus.bridge`)."""
    return _spell(site, "bridge", bridge, "", "state")


def job_status(site: str, job: str) -> str:
    """Spell the topic of a job's retained status."""
    return _spell(site, "jobs", job, "", "status")


def for_hub() -> tuple[str, ...]:
    """Filters of all that a hub listens to, from every site."""
    return (f"{ROOT}/+/bridge/+/state", f"{ROOT}/+/dev/+/up/#", f"{ROOT}/+/client/+/up/#")


def for_device(site: str, device: str) -> tuple[str, ...]:
    """Filters of all that a device listens to: the hub, its site's link, and itself.

    Its own state tells it of another agent of its name.
    """
    below = f"{ROOT}/{site}"
    return (f"{below}/dev/{device}/dn/#", device_up(site, device, "state"), f"{below}/bridge/+/state")


def for_client(site: str, client: str) -> tuple[str, ...]:
    """Filters of the answers to a client."""
    return (f"{ROOT}/{site}/client/{client}/dn/#",)


def hubs() -> str:
    """Spell the filter of every hub's presence, at whatever site it is: bridges carry it to all of them."""
    return f"{ROOT}/+/hub/+/state"


def parse(topic: str) -> Address:
    """Read a topic; raises `MessageInvalid` where it is none of ours."""
    if topic.startswith(ROOT + "/") and len(topic) < 512:
        match topic[len(ROOT) + 1 :].split("/"):
            case [site, "dev", name, "up", channel] if channel in DEVICE_UP:
                return _address(topic, site, "dev", name, "up", channel)
            case [site, "dev", name, "dn", channel] if channel in DEVICE_DN:
                return _address(topic, site, "dev", name, "dn", channel)
            case [site, "client", name, "up", channel] if channel in CLIENT_UP:
                return _address(topic, site, "client", name, "up", channel)
            case [site, "client", name, "dn", channel] if channel in CLIENT_DN:
                return _address(topic, site, "client", name, "dn", channel)
            case [site, "hub", name, "state"]:
                return _address(topic, site, "hub", name, "", "state")
            case [site, "bridge", name, "state"]:
                return _address(topic, site, "bridge", name, "", "state")
            case [site, "jobs", name, "status"]:
                return _address(topic, site, "jobs", name, "", "status")
    raise MessageInvalid(f"{topic[:100]!r} is not a topic of Resonator")


def _address(
    topic: str, site: str, kind: Kind, name: str, direction: Literal["up", "dn", ""], channel: str
) -> Address:
    if not (is_name(site) and is_name(name)):
        raise MessageInvalid(
            f"{topic[:100]!r} holds a name with signs other than letters, digits, '.', '_', '-'"
        )
    return Address(site, kind, name, direction, channel)


def _spell(site: str, kind: Kind, name: str, direction: str, channel: str) -> str:
    topic = "/".join(part for part in (ROOT, site, kind, name, direction, channel) if part)
    parse(topic)
    return topic
