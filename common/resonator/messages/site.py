"""Between client and hub: how the sites are linked."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import FailFast, Field

from resonator.ids import Name
from resonator.messages.base import Count, Message, Part, Seconds


class SiteQuery(Message):
    """Asks for the sites; answered by `site.list`."""

    wire: ClassVar[str] = "site.query"


class BridgeReport(Part):
    """The bridge of a site's broker, and for how long it has been as it is."""

    name: Name
    up: bool
    for_s: Seconds


class SiteReport(Part):
    """A site as the hub sees it.

    `direct` are the sites on the hub's own broker. `devices` counts boxes by state; `kernels` were sent and
    have no result yet, `results` wait at the boxes for the hub, as these last said. `round_trip` is the
    median over the boxes of how long the last grant of a window took to be answered, and `silent_s` how long
    ago the last of them was heard of; None where that is not known.
    """

    site: Name
    link: Literal["direct", "up", "down"]
    bridges: Annotated[tuple[BridgeReport, ...], FailFast(), Field(max_length=16)] = ()
    devices: Annotated[
        dict[Literal["offline", "unknown", "idle", "reserved", "running"], Count], Field(max_length=5)
    ]
    kernels: Count = 0
    results: Count = 0
    round_trip: Seconds | None = None
    silent_s: Seconds | None = None


class SiteList(Message):
    """Answers `site.query`: the sites that are cut off first, then by name."""

    wire: ClassVar[str] = "site.list"
    sites: Annotated[tuple[SiteReport, ...], FailFast(), Field(max_length=2000)]
