"""What a Mosquitto has to know to be a site's broker: how it listens, and its bridge to the cloud's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from resonator.bus.port import MAX_PACKET_BYTES
from resonator.bus.topics import ROOT, bridge_state
from resonator.bus.url import BrokerAddress
from resonator.trust import Party
from resonator.trust.credentials import AUTHORITY, CERTIFICATE, KEY
from resonator_hub.authority import mosquitto

KEEPALIVE_S = 10
"""A link that is cut without a word is noticed at both ends within one and a half of it."""
MAX_QUEUED = 20_000
"""Messages that wait for the link; boxes send again what the hub has not acknowledged."""
AUTOSAVE_S = 1
"""What a broker that is killed may lose of its queue, in seconds."""
RETRY_S, MAX_RETRY_S = 1, 5
"""How long the bridge waits before it connects again, at first and at most."""


@dataclass(frozen=True)
class Bridge:
    """From the broker of a site to that of the cloud.

    `keepalive_s` is how often a silent link is tried, `max_queued` how many messages wait for
    one that is cut.
    """

    broker: Party
    cloud: BrokerAddress
    keepalive_s: int = KEEPALIVE_S
    max_queued: int = MAX_QUEUED

    @property
    def site(self) -> str:
        """The site that it joins to the cloud."""
        return self.broker.site


def config(bridge: Bridge, folder: Path, host: str, port: int, user: str) -> str:
    """Return the text of mosquitto.conf for a site's broker whose files lie in `folder`.

    For a cloud with TLS the identity in `folder` proves who this is, to the site's boxes and to the cloud.
    """
    tls = bridge.cloud.tls
    parts = (
        mosquitto.listener(folder, host, port, user),
        mosquitto.guard(folder) if tls else "allow_anonymous true\n",
        mosquitto.keeping(folder, AUTOSAVE_S, bridge.max_queued),
        _connection(bridge),
        _identity(folder) if tls else "",
    )
    return "\n".join(part for part in parts if part)


def _connection(bridge: Bridge) -> str:
    name, below = bridge.broker.user, f"{ROOT}/{bridge.site}/"
    return f"""\
# The bridge: `up` goes out, `dn` comes in, so nothing goes round in circles.
connection {name}
address {bridge.cloud.host}:{bridge.cloud.port}
topic +/+/up/# out 1 {below} {below}
topic +/+/dn/# in 1 {below} {below}
topic jobs/+/status in 1 {below} {below}
topic +/hub/+/state in 1 {ROOT}/ {ROOT}/

# Both brokers keep what the other has missed. MQTT 3.1.1, because as MQTT 5 bridges lose it at restarts.
bridge_protocol_version mqttv311
remote_clientid {name}
local_clientid {name}
cleansession false
local_cleansession false
bridge_max_packet_size {MAX_PACKET_BYTES}

start_type automatic
keepalive_interval {bridge.keepalive_s}
restart_timeout {RETRY_S} {MAX_RETRY_S}
# Whether there is a link, retained at both brokers: 1, or 0 by the last will.
notifications true
notification_topic {bridge_state(bridge.site, bridge.broker.name)}
"""


def _identity(folder: Path) -> str:
    return f"""\
bridge_cafile {folder / AUTHORITY}
bridge_certfile {folder / CERTIFICATE}
bridge_keyfile {folder / KEY}
bridge_insecure false
"""
