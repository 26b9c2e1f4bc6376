"""A complete configuration for a stock Mosquitto: who is let in, and where each may speak and listen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from resonator.bus.connection import UNDER_WAY
from resonator.bus.port import MAX_PACKET_BYTES
from resonator.bus.topics import CLIENT_UP, DEVICE_UP, ROOT, bridge_state
from resonator.trust import Party
from resonator.trust.credentials import AUTHORITY, CERTIFICATE, KEY, REVOCATIONS

CONFIG, RULES, DATA, PID = "mosquitto.conf", "acl", "data", "mosquitto.pid"
MAX_QUEUED = 100_000
"""Messages that wait for one client that is away."""
MAX_QUEUED_BYTES = 256 * 2**20


def config(folder: Path, host: str, port: int, user: str) -> str:
    """Return the text of mosquitto.conf for a broker whose files lie in `folder`.

    It speaks only with the fleet; the limits keep one client from filling the broker's memory. Started by
    root, it runs as the account `user`.
    """
    return "\n".join((listener(folder, host, port, user), guard(folder), keeping(folder)))


def listener(folder: Path, host: str, port: int, user: str) -> str:
    """Return the lines that say where a broker listens, and as whom it runs."""
    return f"""\
# Written by Resonator. Start the broker with: mosquitto -c {folder / CONFIG}
# A SIGHUP has it read certificate, revocations and access list again.
user {user}
pid_file {folder / PID}
per_listener_settings false
listener {port} {host}
"""


def guard(folder: Path) -> str:
    """Return the lines that let only the fleet in, with the files of the identity in `folder`.

    TLS 1.2 or later with a client certificate of the fleet, whose common name becomes the user's name.
    """
    return f"""\
cafile {folder / AUTHORITY}
certfile {folder / CERTIFICATE}
keyfile {folder / KEY}
crlfile {folder / REVOCATIONS}
require_certificate true
use_identity_as_username true
allow_anonymous false
acl_file {folder / RULES}
"""


def keeping(folder: Path, autosave_s: int = 60, max_queued: int = MAX_QUEUED) -> str:
    """Return the lines that say what is kept in `folder`, every how many seconds, and how much of it."""
    return f"""\
# Presence and job status are retained messages: they outlive the broker.
persistence true
persistence_location {folder / DATA}/
autosave_interval {autosave_s}

max_packet_size {MAX_PACKET_BYTES}
max_inflight_messages {UNDER_WAY}
max_queued_messages {max_queued}
max_queued_bytes {MAX_QUEUED_BYTES}
# Without it every small message waits up to 40 ms for the one before.
set_tcp_nodelay true
"""


def rules(hubs: Sequence[str], overseers: Sequence[str], brokers: Sequence[Party] = ()) -> str:
    """Return the text of the access list: what everybody may, and what `hubs` and `overseers` may besides.

    Each of the `brokers` may bridge its site: carry what that says, and hear what is said to it.

    A device or user writes to the channels of its own `up` and reads below its own `dn`; `%u` is its name,
    such as lab/dev/box. What is not allowed is forbidden: nobody fills the broker with topics he makes up.
    """
    channels = dict.fromkeys((*DEVICE_UP, *CLIENT_UP))
    everybody = [
        *(("pattern write", f"{ROOT}/%u/up/{channel}") for channel in channels),
        ("pattern read", f"{ROOT}/%u/up/state"),  # to notice another that bears the same name
        ("pattern read", f"{ROOT}/%u/dn/#"),
        ("pattern read", f"{ROOT}/+/hub/+/state"),
        ("pattern read", f"{ROOT}/+/bridge/+/state"),  # to know whether there is a way to the hub
        ("pattern read", f"{ROOT}/+/bridge/+/state"),
    ]
    hub = [
        ("topic read", f"{ROOT}/+/dev/+/up/#"),
        ("topic write", f"{ROOT}/+/dev/+/dn/#"),
        ("topic read", f"{ROOT}/+/client/+/up/#"),
        ("topic write", f"{ROOT}/+/client/+/dn/#"),
        ("topic readwrite", f"{ROOT}/+/jobs/+/status"),
    ]
    overseer = [("topic read", f"{ROOT}/+/jobs/+/status"), ("topic read", f"{ROOT}/+/dev/+/up/state")]
    parts = ["# Written by Resonator; it is written again when the fleet changes.", _lines(everybody)]
    parts += [f"user {user}\n{_lines([*hub, ('topic readwrite', f'{ROOT}/{user}/state')])}" for user in hubs]
    parts += [f"user {user}\n{_lines(overseer)}" for user in overseers]
    parts += [f"user {broker.user}\n{_lines(_bridging(broker))}" for broker in brokers]
    return "\n\n".join(parts) + "\n"


def _bridging(broker: Party) -> list[tuple[str, str]]:
    site = f"{ROOT}/{broker.site}"
    return [
        *(("topic write", f"{site}/dev/+/up/{channel}") for channel in DEVICE_UP),
        *(("topic write", f"{site}/client/+/up/{channel}") for channel in CLIENT_UP),
        ("topic write", bridge_state(broker.site, broker.name)),
        ("topic read", f"{site}/+/+/dn/#"),
        ("topic read", f"{site}/jobs/+/status"),
    ]


def _lines(allowed: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"{what} {where}" for what, where in allowed)
