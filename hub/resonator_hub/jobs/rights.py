"""Who may ask what of a hub: every request of a client, and how far each role gets with it, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from resonator.bus.peer import Received
from resonator.failures import Failure, FailureKind
from resonator.messages import (
    BenchRequest,
    BlobRequest,
    DeviceDrain,
    DeviceQuery,
    DeviceUndrain,
    JobCancel,
    JobQuery,
    JobSubmit,
    Message,
    SiteQuery,
)
from resonator.trust.party import USERS, Role

Reach = Literal["own", "all"]
"""Whether a role gets at what belongs to its own jobs, or to everybody's."""

RIGHTS: Mapping[type[Message], Mapping[Role, Reach]] = {
    JobQuery: {"viewer": "all", "submitter": "own", "operator": "all"},
    SiteQuery: {"viewer": "all", "submitter": "all", "operator": "all"},
    DeviceQuery: {"viewer": "all", "submitter": "all", "operator": "all"},
    BlobRequest: {"submitter": "own", "operator": "all"},
    JobSubmit: {"submitter": "own", "operator": "own"},
    BenchRequest: {"submitter": "own", "operator": "own"},
    JobCancel: {"submitter": "own", "operator": "all"},
    DeviceDrain: {"operator": "all"},
    DeviceUndrain: {"operator": "all"},
}
"""What is not there is forbidden. Where nobody signs, everybody may do everything."""


class Who(NamedTuple):
    """Somebody who asks: name and role by his certificate; unsigned what he calls himself, and no role."""

    by: str
    role: str


def who(received: Received) -> Who:
    """Return who asks something."""
    if received.party is not None:
        return Who(received.party.user, received.party.role)
    address = received.address
    return Who(f"{address.site}/{address.kind}/{address.name}", "")


def reach(received: Received) -> Reach | None:
    """Return how far somebody gets with what he asks; None when it is not for him."""
    if received.party is None:
        return "all"
    return RIGHTS[type(received.message)].get(received.party.role)


def reaches(received: Received, site: str, client: str) -> bool:
    """Return whether somebody gets, with what he asks, at a job that this client submitted."""
    extent, address = reach(received), received.address
    return extent == "all" or (extent == "own" and (address.site, address.name) == (site, client))


def forbidden(received: Received) -> Failure:
    """Return the answer to somebody who asks what is not for him."""
    allowed = RIGHTS[type(received.message)]
    people = " and ".join(f"{role}s" for role in USERS if role in allowed)
    name, role = who(received)
    return Failure(
        kind=FailureKind.FORBIDDEN,
        detail=f"{received.message.wire} is for {people}; {name} is a {role}",
    )
