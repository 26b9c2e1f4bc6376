"""The only place where adapters are chosen: which bus, which database, where compute runs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from resonator.bus.blobs import Blobs
from resonator.bus.mqtt import MqttBus
from resonator.bus.port import Will
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
from resonator_hub.inbox import Clock
from resonator_hub.jobs.reception import Reception
from resonator_hub.journal import JOURNAL, Journal
from resonator_hub.leadership import Deposed, Leadership, origin
from resonator_hub.lock import StateLock
from resonator_hub.rules import Rules, began
from resonator_hub.settings import EMBEDDED, HubSettings
from resonator_hub.shared_blobs import open_blobs
from resonator_hub.snapshots import DAY_S
from resonator_hub.watch.standby import standing_by
from resonator_hub.watch.watch import Watch

log = structlog.get_logger(__name__)
EVERYWHERE = "0.0.0.0"
READERS = 2
"""How many models are looked at at a time: a bad one delays others no longer than its time limit."""
READER_BYTES = 2**29


@dataclass(frozen=True)
class Ground:
    """What a hub stands on from one life to the next: broker, who it is there, where it computes, blobs."""

    broker: str
    authority: Access | None
    credentials: Credentials | None
    compute: Compute
    readers: Compute
    blobs: Blobs


async def run(settings: HubSettings, stop: asyncio.Event) -> None:
    """Run a hub until `stop` is set; while another one leads its database it stands by, its compute warm.

    Raises InputInvalid for what the settings get wrong, such as a state directory that another hub uses, and
    Unreachable when what it stands on is gone: to be started again.
    """
    cores = settings.usable_cores()
    # What is not named here is somebody else's to measure on: keep all of this process off it, too.
    os.sched_setaffinity(0, cores)
    async with contextlib.AsyncExitStack() as stack:
        lock = StateLock(settings.state)
        stack.callback(lock.release)
        ground = await _ground(settings, cores, stack)
        await stack.enter_async_context(_warming((ground.readers, ground.compute), stop))
        while not await _live(settings, ground, stop):
            log.warning("this hub begins a new life")


async def _ground(settings: HubSettings, cores: Sequence[int], stack: contextlib.AsyncExitStack) -> Ground:
    blobs = await asyncio.to_thread(open_blobs, settings.blob_place, settings.state / "near")
    url = await _broker(settings, stack)
    authority = _authority(settings)
    party = Party("hub", settings.site, settings.hub)
    own = settings.identity or (own_identity(authority, party) if authority else None)
    credentials = credentials_for(url, own, insecure=settings.insecure, party=party)
    compute = await asyncio.to_thread(compute_of, settings, cores, blobs)
    stack.push_async_callback(compute.close)
    readers = Compute(_readers(settings.max_model, cores), READERS)
    stack.push_async_callback(readers.close)
    return Ground(url, authority, credentials, compute, readers, blobs)


async def _live(settings: HubSettings, ground: Ground, stop: asyncio.Event) -> bool:
    """Lead a life as a hub; return False when another hub has come to lead, so that this one stands by."""
    async with contextlib.AsyncExitStack() as stack:
        database = Database.open(_database_url(settings))
        stack.callback(database.close)
        leadership = Leadership(database)
        stack.callback(leadership.close)
        if not database.own and not await _leads(leadership, settings.status, stop):
            return True
        try:
            await _serve(settings, ground, database, leadership, stop)
        except Deposed as error:
            log.warning(str(error))
            return False
    return True


def _database_url(settings: HubSettings) -> str:
    given = settings.database_url
    return sqlite_url(settings.state / JOURNAL) if given is None else given.get_secret_value()


async def _leads(leadership: Leadership, status: str | None, stop: asyncio.Event) -> bool:
    """Stand by until this hub leads; return False when it is stopped before."""
    if await asyncio.to_thread(leadership.attempt):
        return True
    leading, stopping = asyncio.ensure_future(leadership.lead()), asyncio.ensure_future(stop.wait())
    async with standing_by(status, leadership.told):
        await asyncio.wait({leading, stopping}, return_when=asyncio.FIRST_COMPLETED)
    for waiting in (leading, stopping):
        waiting.cancel()
    await asyncio.wait({leading, stopping})
    if leading.cancelled():
        return False
    leading.result()
    return True


async def _serve(
    settings: HubSettings, ground: Ground, database: Database, leadership: Leadership, stop: asyncio.Event
) -> None:
    """Be the hub of a database; raises what ends that, such as Deposed."""
    authority, credentials = ground.authority, ground.credentials
    async with contextlib.AsyncExitStack() as stack:
        identity = _identity(settings, ground.compute.slots, database, credentials)
        tls = None if credentials is None else credentials.context()

        def will() -> Will:
            # Asked before every connection: who was stopped and is led by now must not throw the leader out.
            if not database.own:
                leadership.check()
            return identity.will()

        name = client_id(settings, credentials, origin(database))
        bus = MqttBus(ground.broker, client_id=name, will=will, tls=tls)
        reception = Reception(ground.readers, settings.max_model)
        keep_s = settings.keep_days * DAY_S
        hub = Hub(identity, bus, ground.compute, database, ground.blobs, authority, reception, keep_s=keep_s)
        log.info(
            f"hub {settings.site}/{settings.hub}, broker {ground.broker}, state in {settings.state}, "
            f"database {database}"
        )
        watch = Watch(hub, database, settings.state, (ground.readers, ground.compute))
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
        try:
            await _until_ended(hub.run(stop), database)
        except Deposed:
            raise  # another hub is there
        except Exception:
            await hub.say_gone()
            raise


async def _until_ended(running: Coroutine[None, None, None], database: Database) -> None:
    """Let a hub run, but not without its database: raises what ended that."""
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    database.on_end(lambda _error: loop.call_soon_threadsafe(gone.set))
    parts = {asyncio.ensure_future(running), asyncio.ensure_future(gone.wait())}
    try:
        done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for part in parts:
            part.cancel()
        await asyncio.wait(parts)
    if database.ended is not None:
        raise database.ended
    for part in done:
        part.result()


def compute_of(settings: HubSettings, cores: Sequence[int], blobs: Blobs) -> Compute:
    """Return the slots for stages: processes of this machine, or the threads of a Dask cluster.

    Raises InputInvalid without the packages for one, Unreachable when it does not answer.
    """
    if settings.scheduler is None:
        slots = settings.slots or len(cores)
        return Compute(WarmPool(slots, cores=cores), slots)
    try:
        from resonator_hub.cluster.pool import ClusterPool
    except ModuleNotFoundError as error:
        raise InputInvalid(
            f"compute: {settings.compute} takes packages that are not installed ({error.name}): "
            "pip install 'resonator[dask]'"
        ) from None
    pool = ClusterPool(settings.scheduler, settings.blob_place, blobs)
    threads = pool.open()
    log.info(f"stages run on the Dask cluster at {settings.scheduler}", threads=threads)
    return Compute(pool, settings.slots or threads)


def _readers(max_model: int, cores: Sequence[int]) -> WarmPool:
    """Return the processes that look at models before these are accepted: no long job delays them.

    They hold a model twice, as bytes and read.
    """
    memory = 3 * max_model + READER_BYTES
    load = "resonator_hub.warm:load_onnx"
    return WarmPool(READERS, cores=cores, memory_bytes=memory, programs=(), load=load)


def client_id(settings: HubSettings, credentials: Credentials | None, origin: str) -> str:
    """Return what the hub is called at a broker: the same after a restart, and nobody else's to guess.

    Whoever connects under another's client id throws him out there, whatever his certificate; hubs that share
    a database do so when the lead changes, and two of one name that do not must not.
    """
    key = b"" if credentials is None else (credentials.folder / KEY).read_bytes()
    secret = hashlib.sha256(origin.encode() + key).hexdigest()[:16]
    return f"hub-{settings.site}-{settings.hub}-{secret}"


@contextlib.asynccontextmanager
async def _warming(pools: Sequence[Compute], stop: asyncio.Event) -> AsyncIterator[None]:
    """Get pools warm while the block runs, which takes seconds: whatever comes in waits for them."""

    def warmed(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            stop.set()  # without compute there is nothing but a goodbye

    warming = asyncio.create_task(_start(pools), name="warming")
    warming.add_done_callback(warmed)
    try:
        yield
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
            f"{database} was begun with {rules.policy}, batch {rules.batch}, window "
            f"{rules.window_s:g} s, and goes on so; for other rules use another database"
        )
    # Every start adds at least one event; a clock, because after a backup of long ago is restored there are
    # fewer, and whoever has heard of a later session does not listen to an earlier one.
    session = journal.length() + int(1000 * Clock(not_before=journal.last_at()).now())
    seal = None if credentials is None else Seal(credentials)
    # The origin itself is in the client id, which nobody is to guess.
    told = hashlib.sha256(origin(database).encode()).hexdigest()[:16]
    return Identity(settings.site, settings.hub, session, slots, rules, seal, told)
