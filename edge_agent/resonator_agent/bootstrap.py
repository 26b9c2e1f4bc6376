"""The only place where an agent's adapters are chosen: which bus, which profiler, where things are kept."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import signal
import time
import uuid
from functools import partial
from pathlib import Path

from resonator.bus import codec, topics
from resonator.bus.blobs import BlobStore
from resonator.bus.mqtt import MqttBus
from resonator.bus.peer import Peer, new_id
from resonator.bus.port import Will
from resonator.messages import DeviceState, Identity, Status
from resonator.service import Service
from resonator.trust.seal import Seal
from resonator_agent.machine import Machine
from resonator_agent.memory import Memory
from resonator_agent.naming import Bearer
from resonator_agent.outbox import Outbox
from resonator_agent.profiler import Profiler
from resonator_agent.renewal import Renewal
from resonator_agent.runtime import Agent, Parts, Settings

MAX_CREDIT = 1024**3


async def run(settings: Settings, identity: Identity, memory: Memory) -> int:
    """Serve this box until it is drained, and return the exit code; raises ResonatorError."""
    agent = assembled(settings, identity, memory)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, agent.interrupt)
    service = Service()
    telling = loop.create_task(service.keep_alive(agent.summary), name="telling systemd")
    try:
        return await agent.run(service.ready)
    finally:
        service.stopping()
        telling.cancel()


def assembled(settings: Settings, identity: Identity, memory: Memory) -> Agent:
    """Put an agent together on MQTT and on this box's processors; raises ResonatorError."""
    state, credentials = settings.state, settings.credentials
    outbox = Outbox(state / "outbox.sqlite")
    machine = awakened(identity, memory, credit=min(MAX_CREDIT, shutil.disk_usage(state).free // 4))
    seal = None if credentials is None else Seal(credentials)
    tls = None if credentials is None else credentials.context()
    # Not to be guessed: whoever connects under another's client id throws him out there.
    client_id = f"agent-{settings.site}-{settings.name}-{secrets.token_hex(8)}"
    will = partial(last_will, settings, machine, seal)
    bus = MqttBus(settings.broker, client_id=client_id, will=will, tls=tls)
    peer = Peer(bus, settings.source, seal)
    renewal = None
    if seal is not None and tls is not None:
        renewal = Renewal(peer, seal, tls, partial(bus.reconnect, "a new certificate"))
    blobs = BlobStore(_emptied(state / "blobs"), lasting=False)
    profiler = Profiler(settings.limits, _emptied(state / "profiler"))
    return Agent(settings, Parts(machine, memory, outbox, blobs, peer, profiler, renewal))


def awakened(identity: Identity, memory: Memory, *, credit: int) -> Machine:
    """Begin a life: a session above all former ones, with what these left behind; `credit` is in bytes."""
    bearer = Bearer(memory.next_session(time.time()), uuid.uuid4().hex)
    return Machine(
        identity, bearer=bearer, credit=credit, highest=memory.epoch, interrupted=memory.interrupted
    )


def last_will(settings: Settings, machine: Machine, seal: Seal | None = None) -> Will:
    """Return what the broker says when this agent is gone without a word."""
    gone = DeviceState(
        status=Status.OFFLINE,
        session=machine.bearer.session,
        instance=machine.bearer.instance,
        epoch=machine.highest,
        reason="the connection to the broker broke",
    )
    topic = topics.device_up(settings.site, settings.name, "state")
    payload = codec.encode(gone, id=new_id(), source=settings.source, topic=topic, seal=seal)
    return Will(topic, payload, retain=True)


def _emptied(folder: Path) -> Path:
    """Make a folder for what does not outlive the agent, and clear what a former life left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
