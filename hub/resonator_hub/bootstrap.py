"""The only place where adapters are chosen: which bus, which database, where compute runs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Sequence
from functools import partial

import structlog

from resonator.bus.blobs import BlobStore
from resonator.bus.mqtt import MqttBus
from resonator.bus.url import parse_broker_url
from resonator.errors import InputInvalid
from resonator.trust import Credentials, Party, credentials_for
from resonator.trust.credentials import KEY
from resonator.trust.seal import Seal
from resonator_hub.authority.access import Access
from resonator_hub.authority.custody import Custody, own_identity
from resonator_hub.authority.enrolling import Door
from resonator_hub.authority.passphrase import passphrase_of
from resonator_hub.broker import EmbeddedBroker
from resonator_hub.compute import Compute, WarmPool
from resonator_hub.database import Database, sqlite_url
from resonator_hub.hub import Hub, Identity
from resonator_hub.jobs.reception import Reception
from resonator_hub.journal import JOURNAL, Journal
from resonator_hub.lock import StateLock
from resonator_hub.rules import Rules, began
from resonator_hub.settings import EMBEDDED, HubSettings
from resonator_hub.snapshots import DAY_S
from resonator_hub.watch.watch import Watch

log = structlog.get_logger(__name__)
EVERYWHERE = "0.0.0.0"
READERS = 2
"""How many models are looked at at a time: a bad one delays others no longer than its time limit."""
READER_BYTES = 2**29


async def run(settings: HubSettings, stop: asyncio.Event) -> None:
    """Run a hub until `stop` is set.

    Raises InputInvalid for what the settings get wrong, such as a state directory that another hub uses.
    """
    cores = settings.usable_cores()
    slots = settings.slots or len(cores)
    # What is not named here is somebody else's to measure on: keep all of this process off it, too.
    os.sched_setaffinity(0, cores)
    async with contextlib.AsyncExitStack() as stack:
        lock = StateLock(settings.state)
        stack.callback(lock.release)
        database = Database.open(settings.database or sqlite_url(settings.state / JOURNAL))
        stack.callback(database.close)
        url = await _broker(settings, stack)
        authority = _authority(settings)
        party = Party("hub", settings.site, settings.hub)
        own = settings.identity or (own_identity(authority, party) if authority else None)
        credentials = credentials_for(url, own, insecure=settings.insecure, party=party)
        identity = _identity(settings, slots, database, credentials)
        compute = Compute(WarmPool(slots, cores=cores), slots)
        stack.push_async_callback(compute.close)
        tls = None if credentials is None else credentials.context()
        bus = MqttBus(url, client_id=client_id(settings, credentials), will=identity.will, tls=tls)
        readers = Compute(_readers(settings.max_model, cores), READERS)
        stack.push_async_callback(readers.close)
        blobs, reception = BlobStore(settings.state / "blobs"), Reception(readers, settings.max_model)
        keep_s = settings.keep_days * DAY_S
        hub = Hub(identity, bus, compute, database, blobs, authority, reception, keep_s=keep_s)
        log.info(f"hub {settings.site}/{settings.hub}, broker {url}, state in {settings.state}")
        watch = Watch(hub, database, settings.state, (readers, compute))
        await stack.enter_async_context(watch.running(settings.status))
        await hub.prepare()
        await stack.enter_async_context(bus)
        if authority is not None and identity.seal is not None and tls is not None:
            port = await stack.enter_async_context(Door(authority).opened(EVERYWHERE, settings.door))
            log.info(f"boxes are enrolled at port {port}")
            reconnect = partial(bus.reconnect, "a new certificate")
            custody = Custody(authority, identity.seal, tls, reconnect, hub.chronicle.read)
            stack.callback(asyncio.create_task(custody.run(), name="custody").cancel)
        watch.service.ready()
        await _serve(hub, (readers, compute), stop)


def _readers(max_model: int, cores: Sequence[int]) -> WarmPool:
    """Return the processes that look at models before these are accepted: no long job delays them.

    They hold a model twice, as bytes and read.
    """
    memory = 3 * max_model + READER_BYTES
    load = "resonator_hub.warm:load_onnx"
    return WarmPool(READERS, cores=cores, memory_bytes=memory, programs=(), load=load)


def client_id(settings: HubSettings, credentials: Credentials | None) -> str:
    """Return what the hub is called at a broker: the same after a restart, and nobody else's to guess.

    Whoever connects under another's client id throws him out there, whatever his certificate.
    """
    name = f"hub-{settings.site}-{settings.hub}"
    if credentials is None:
        return name
    return f"{name}-{hashlib.sha256((credentials.folder / KEY).read_bytes()).hexdigest()[:16]}"


async def _serve(hub: Hub, pools: Sequence[Compute], stop: asyncio.Event) -> None:
    """Run the hub while its pools get warm, which takes seconds: whatever comes in waits for them."""

    def warmed(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            stop.set()  # without compute there is nothing but a goodbye

    warming = asyncio.create_task(_start(pools), name="warming")
    warming.add_done_callback(warmed)
    try:
        await hub.run(stop)
    finally:
        warming.cancel()
    if warming.done():
        warming.result()


async def _start(pools: Sequence[Compute]) -> None:
    await asyncio.gather(*(pool.start() for pool in pools))


def _authority(settings: HubSettings) -> Access | None:
    """Return the way to the authority that this hub keeps, if it does; raises InputInvalid."""
    if settings.ca is None:
        return None
    if settings.broker == EMBEDDED or not parse_broker_url(settings.broker).tls:
        raise InputInvalid("--ca is of use with a broker of mqtts:// alone: give its address by --broker")
    return Access(settings.ca.absolute(), passphrase_of(settings.ca))


async def _broker(settings: HubSettings, stack: contextlib.AsyncExitStack) -> str:
    if settings.broker != EMBEDDED:
        return settings.broker
    broker = EmbeddedBroker(port=settings.port)
    await broker.start()
    stack.push_async_callback(broker.stop)
    return broker.url


def _identity(
    settings: HubSettings, slots: int, database: Database, credentials: Credentials | None
) -> Identity:
    journal = Journal(database)
    wanted = Rules(settings.policy, settings.batch, settings.window)
    rules = began(journal) or wanted
    if rules != wanted:
        log.warning(
            f"{settings.state} was begun with {rules.policy}, batch {rules.batch}, window "
            f"{rules.window_s:g} s, and goes on so; for other rules use another state directory"
        )
    session = journal.length() + 1  # every start adds at least one event
    seal = None if credentials is None else Seal(credentials)
    return Identity(settings.site, settings.hub, session, slots, rules, seal)
