"""The way to a broker: with TLS and an identity, or within this machine, or open where somebody said so."""

from __future__ import annotations

from pathlib import Path

import structlog

from resonator.bus.url import parse_broker_url
from resonator.errors import InputInvalid
from resonator.trust.credentials import Credentials
from resonator.trust.party import Party

_log = structlog.get_logger(__name__)


def credentials_for(
    broker: str, identity: Path | None, *, insecure: bool, party: Party | None = None
) -> Credentials | None:
    """Return what to prove oneself, or `party`, with at a broker; None where nobody asks for it.

    Raises InputInvalid where an identity is missing, unusable or somebody else's, and for a way that others
    can listen to and speak on, unless `insecure` says that they may.
    """
    address = parse_broker_url(broker)
    if address.tls:
        if identity is None:
            raise InputInvalid(
                f"broker {address} asks who this is: give an identity by --identity DIR or RESONATOR_IDENTITY"
            )
        credentials = Credentials.load(identity)
        if party is not None and credentials.party.user != party.user:
            raise InputInvalid(f"{identity} is the identity of {credentials.party.user}, not of {party.user}")
        return credentials
    if address.is_loopback:
        return None
    if not insecure:
        raise InputInvalid(
            f"broker {address} is on another machine and without TLS: anybody on the way could read models "
            "and have code run on boxes; use mqtts:// with an identity, or allow it with --insecure "
            "(RESONATOR_INSECURE=1)"
        )
    _log.warning(f"broker {address} has no TLS: whoever is on the way there can have code run on boxes")
    return None
