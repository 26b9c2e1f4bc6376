"""Broker addresses as users write them: `mqtt://host:port`, or `mqtts://host:port` with TLS."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from resonator.errors import InputInvalid

DEFAULT_PORT = 1883
TLS_PORT = 8883


@dataclass(frozen=True)
class BrokerAddress:
    """Where a broker listens, and whether it speaks TLS there."""

    host: str
    port: int
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' * self.tls}://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether nothing that is said to it leaves this machine."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_broker_url(url: str) -> BrokerAddress:
    """Return the address in `url`; raises InputInvalid for what is not `mqtt[s]://host[:port]`."""
    accepted = "mqtt://host:port, like mqtt://127.0.0.1:1883, or mqtts://host:port"
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InputInvalid(f"broker {url!r} is not an address of a broker; write {accepted}") from None
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise InputInvalid(f"broker {url!r} is not an address of a broker; write {accepted}")
    if parts.username is not None or parts.password is not None:
        raise InputInvalid(f"broker {parts.hostname}: user names are not supported; write {accepted}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise InputInvalid(f"broker {url!r}: nothing may follow the port; write {accepted}")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise InputInvalid(f"broker {url!r}: the port is not a number from 1 to 65535; write {accepted}")
    try:
        parts.hostname.encode("idna")  # what the resolver will do
    except UnicodeError:
        raise InputInvalid(f"broker {url[:200]!r}: the host name is not valid; write {accepted}") from None
    tls = parts.scheme == "mqtts"
    return BrokerAddress(parts.hostname, port or (TLS_PORT if tls else DEFAULT_PORT), tls)
