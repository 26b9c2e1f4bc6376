"""The hub as a whole: its parts put together, its presence on the bus, its life from start to goodbye."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from importlib.metadata import version

import structlog

from resonator.bus import codec, topics
from resonator.bus.blobs import Blobs
from resonator.bus.peer import Peer, new_id
from resonator.bus.port import Bus, Will
from resonator.errors import BusUnreachable
from resonator.messages import HubState
from resonator.trust.seal import Seal
from resonator_hub.authority.access import Access
from resonator_hub.authority.chronicle import Chronicle
from resonator_hub.authority.renewals import Renewals
from resonator_hub.database import Database
from resonator_hub.fleet import Acks, Links, Presence, Registry, Sites, Windows
from resonator_hub.inbox import Clock, Inbox
from resonator_hub.jobs.blob_rights import BlobRights
from resonator_hub.jobs.board import Board
from resonator_hub.jobs.reception import Reception
from resonator_hub.jobs.requests import Desk, Requests
from resonator_hub.jobs.serving import Serving
from resonator_hub.jobs.store import Jobs
from resonator_hub.jobs.submissions import Submissions
from resonator_hub.journal import Journal
from resonator_hub.keeper import KEEP_S, Keeper
from resonator_hub.measure import Measuring
from resonator_hub.namesake import Namesake
from resonator_hub.performers import Acts, stages
from resonator_hub.records import Catalog, Records
from resonator_hub.rules import Rules
from resonator_hub.runtime import Runtime
from resonator_hub.snapshots import Snapshots
from resonator_hub.watch.narrator import Narrator
from resonator_hub.watch.observer import Observer
from resonator_hub.workshop import Computes, Workshop

log = structlog.get_logger(__name__)
ANNOUNCE_S = 300.0
"""How often the hub says that it is there: on its way to a site a broker may have dropped it."""
GOODBYE_S = 3.0
"""How long each of the last words may take when the hub is stopped."""


@dataclass(frozen=True)
class Identity:
    """What a hub is called, and what it tells of itself; `session` grows with every start.

    `origin` tells its database from those of other hubs.
    With a `seal` it signs what it says, and listens to nobody who does not.
    """

    site: str
    name: str
    session: int
    slots: int
    rules: Rules
    seal: Seal | None = None
    origin: str = ""

    @property
    def topic(self) -> str:
        """Where its presence is retained."""
        return topics.hub_state(self.site, self.name)

    def state(self, *, online: bool) -> HubState:
        """Return its presence; the broker publishes the offline one when the hub is gone without a word."""
        if not online:
            return HubState(status="offline", session=self.session, origin=self.origin)
        return HubState(
            status="online",
            session=self.session,
            origin=self.origin,
            version=version("resonator"),
            policy=self.rules.policy,
            slots=self.slots,
        )

    def will(self) -> Will:
        """Return what the broker says when the hub is gone without a word."""
        gone = self.state(online=False)
        payload = codec.encode(gone, id=new_id(), source=self.name, topic=self.topic, seal=self.seal)
        return Will(self.topic, payload, retain=True)


class Hub:
    """Everything but the adapters, which come from outside: bus, compute, database, blobs.

    With an `authority` it renews the certificates of boxes. Every event is kept for `keep_s` seconds.
    """

    def __init__(
        self,
        identity: Identity,
        bus: Bus,
        compute: Computes,
        database: Database,
        blobs: Blobs,
        authority: Access | None = None,
        reception: Reception | None = None,
        *,
        keep_s: float = KEEP_S,
    ) -> None:
        self.identity = identity
        self.scheduler = scheduler = identity.rules.scheduler()
        self._bus = bus
        self.peer = peer = Peer(bus, identity.name, identity.seal)
        journal = Journal(database)
        self.inbox = inbox = Inbox(Clock(not_before=journal.last_at()))
        jobs, records, catalog = Jobs(database), Records(database), Catalog(database)
        self.registry, links = Registry(database), Links(peer, inbox.now)
        registry = self.registry
        self._acks = Acks(peer)
        self._measuring = Measuring(peer, inbox, self._acks, blobs, catalog, jobs, registry, links)
        self._windows = Windows(
            peer, inbox, self._acks, opened=self._measuring.opened, ended=self._measuring.ended
        )
        presence = Presence(peer, inbox, registry, links, self._windows.granted, self._windows.lost)
        self.chronicle = Chronicle(journal, inbox, presence.put_out)
        self._renewals = None if identity.seal is None else Renewals(peer, identity.seal, authority)
        rights = BlobRights(inbox, blobs, jobs, self._measuring.pushed, scheduler.delivered)
        serving = Serving(peer, blobs, rights)
        self._board = Board(peer, scheduler.status, lambda job: (jobs.get(job).site, jobs.get(job).client))
        self.desk = desk = Desk(peer)
        sites = Sites(links, registry, self._windows, self._measuring.waiting, scheduler.devices, inbox.now)
        Requests(desk, inbox, scheduler, registry, sites.report, jobs)
        reception = reception or Reception(compute)
        self._submissions = Submissions(desk, inbox, scheduler, jobs, blobs, serving, reception)
        shop = Workshop(compute, blobs, catalog, records, jobs, inbox.now)
        acts = Acts(self._windows, self._measuring, records, jobs, self._board)
        self._runtime = Runtime(
            inbox,
            journal,
            scheduler,
            acts=acts.table(),
            works=stages(shop),
            recall=acts.recall(),
            keeper=Keeper(journal, Snapshots(database), scheduler, self._measuring.asked, keep_s=keep_s),
        )
        self.prepared = False
        self.observe(Narrator(scheduler.status))
        self._namesake = Namesake(peer, identity.topic, identity.state(online=True), self._announce)
        bus.on_connect(self._announce)

    def observe(self, observer: Observer) -> None:
        """Tell somebody of all that happens from here on."""
        self._runtime.observe(observer)

    async def prepare(self) -> None:
        """Go back to where the journal ends, and listen; to be awaited before the bus connects."""
        events = self._runtime.restore()
        log.info("journal folded", events=events, session=self.identity.session)
        await self._bus.subscribe(*topics.for_hub(), self.identity.topic)
        self.prepared = True

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then say goodbye; raises what ends the hub otherwise."""
        self._runtime.start(self.identity.slots, self.identity.rules)
        runtime = asyncio.create_task(self._runtime.run(), name="runtime")
        hearing = asyncio.create_task(self.peer.serve(), name="hearing")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        namesake = asyncio.create_task(self._namesake.met(), name="namesake")
        presence = asyncio.create_task(self._stay_announced(), name="presence")
        parts: set[asyncio.Task[object]] = {runtime, hearing, stopping, namesake, presence}
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
            await self._say_goodbye()
        finally:
            await self._end(parts)

    async def _announce(self) -> None:
        await self._say_here()
        self._board.say_again()

    async def _stay_announced(self) -> None:
        while True:
            await asyncio.sleep(ANNOUNCE_S)
            try:
                await self._say_here()
            except BusUnreachable as error:
                log.warning("presence not announced", reason=str(error))

    async def _say_here(self) -> None:
        await self.peer.send(self.identity.topic, self.identity.state(online=True), retain=True)

    async def _say_goodbye(self) -> None:
        await self._submissions.close()
        if not self._bus.connected:
            return
        await self._windows.end_all(GOODBYE_S)
        await self._board.close(GOODBYE_S)
        await self._acks.close(GOODBYE_S)
        await self.say_gone()

    async def say_gone(self) -> None:
        """Tell everybody that the hub is not there: the broker does so only where nothing was said."""
        if not self._bus.connected:
            return
        goodbye = self.peer.send(self.identity.topic, self.identity.state(online=False), retain=True)
        try:
            await asyncio.wait_for(goodbye, GOODBYE_S)
        except (BusUnreachable, asyncio.TimeoutError) as error:
            log.warning("no goodbye", reason=str(error))

    async def _end(self, parts: set[asyncio.Task[object]]) -> None:
        for part in parts:
            part.cancel()
        await asyncio.wait(parts)
        await self._submissions.close()
        if self._renewals is not None:
            await self._renewals.close()
        await self._windows.close()
        await self._measuring.close()
        await self._board.close(0.0)
        await self._acks.close(0.0)
