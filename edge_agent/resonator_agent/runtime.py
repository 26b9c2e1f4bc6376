"""The shell around the agent's machine: bus, profiler, disk and clock; it decides nothing."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from resonator.bus import codec, topics
from resonator.bus.blobs import BlobStore
from resonator.bus.mqtt import MqttBus
from resonator.bus.peer import Peer, Received, new_id
from resonator.bus.port import Will
from resonator.cli.exits import ExitCode
from resonator.failures import Failure
from resonator.ids import device_id
from resonator.messages import (
    Ack,
    BlobAbsent,
    BlobChunk,
    DeviceClaim,
    DeviceState,
    Identity,
    KernelPush,
    KernelResult,
    Message,
    Status,
    Telemetry,
    WindowClose,
    WindowClosed,
    WindowGrant,
    WindowOpened,
)
from resonator.trust import Credentials
from resonator.trust.seal import Seal
from resonator_agent import commands as do
from resonator_agent import events as ev
from resonator_agent.intake import Intake
from resonator_agent.machine import Machine
from resonator_agent.memory import Memory
from resonator_agent.naming import Bearer
from resonator_agent.outbox import Outbox
from resonator_agent.post import RESEND_S, Post
from resonator_agent.profiler import Profiler, Run
from resonator_agent.renewal import Renewal
from resonator_agent.worker_process import Limits

log = structlog.get_logger(__name__)

BUSY_TELEMETRY_S = 5.0
IDLE_TELEMETRY_S = 60.0
FAREWELL_S = 5.0
"""How long the last words may take to reach the broker."""
MAX_CREDIT = 1024**3


@dataclass(frozen=True)
class Settings:
    """What an agent is started with."""

    name: str
    site: str
    broker: str
    state: Path
    limits: Limits
    credentials: Credentials | None = None


class Agent:
    """One device on the bus; `run` serves it until it is drained or its name is lost."""

    def __init__(self, settings: Settings, identity: Identity, memory: Memory):
        self._settings = settings
        self._memory = memory
        self._outbox = Outbox(settings.state / "outbox.sqlite")
        self._store = BlobStore(_emptied(settings.state / "blobs"), lasting=False)
        self._profiler = Profiler(settings.limits, _emptied(settings.state / "profiler"))
        bearer = Bearer(memory.next_session(time.time()), uuid.uuid4().hex)
        self._machine = Machine(
            identity,
            bearer=bearer,
            credit=min(MAX_CREDIT, shutil.disk_usage(settings.state).free // 4),
            highest=memory.epoch,
            interrupted=memory.interrupted,
        )
        # Not to be guessed: whoever connects under another's client id throws him out there.
        client_id = f"agent-{settings.site}-{settings.name}-{secrets.token_hex(8)}"
        tls = None if settings.credentials is None else settings.credentials.context()
        self._seal = None if settings.credentials is None else Seal(settings.credentials)
        self._bus = MqttBus(settings.broker, client_id=client_id, will=self._will, tls=tls)
        self._source = str(device_id(settings.site, settings.name))
        self._peer = Peer(self._bus, self._source, self._seal)
        self._renewal: Renewal | None = None
        if self._seal is not None and tls is not None:
            reconnect = partial(self._bus.reconnect, "a new certificate")
            self._renewal = Renewal(self._peer, self._seal, tls, reconnect)
        self._post = Post(self._peer, self._outbox, settings.site, settings.name)
        self._intake = Intake(self._store, self._post.send, self._blob_ended)
        self._tasks: set[asyncio.Task[None]] = set()
        self._window_changed = asyncio.Event()
        self._interrupts = 0
        self._busy_s = 0.0
        self._ended: asyncio.Future[int]

    async def run(self) -> int:
        """Serve until the end and return the exit code; raises ResonatorError if the box cannot profile."""
        self._ended = asyncio.get_running_loop().create_future()
        self._listen()
        await self._profiler.start()
        try:
            await self._bus.subscribe(*topics.for_device(self._settings.site, self._settings.name))
            self._bus.on_connect(self._connected)
            async with self._bus:
                for work in (self._peer.serve(), self._resend(), self._report()):
                    self._spawn(work)
                if self._renewal is not None:
                    self._spawn(self._renewal.run())
                code = await self._ended
                await self._post.flush(FAREWELL_S if self._interrupts < 2 else 1.0)
                return ExitCode.INTERRUPTED if self._interrupts > 1 else code
        finally:
            await self._close()

    def interrupt(self) -> None:
        """Drain; asked again, stop at once."""
        self._interrupts += 1
        if self._interrupts == 1:
            log.info("draining: the current kernel may finish; press Ctrl-C again to stop at once")
        if self._interrupts > 2 and not self._ended.done():
            self._ended.set_result(ExitCode.INTERRUPTED)
        self._step(ev.DrainAsked(self._now()))

    # --- events in --------------------------------------------------------------------------------------

    def _listen(self) -> None:
        handlers: tuple[tuple[type[Message], Callable[[Received], None]], ...] = (
            (WindowGrant, self._granted),
            (WindowClose, self._close_asked),
            (KernelPush, self._pushed),
            (Ack, self._acknowledged),
            (BlobChunk, self._blob_answered),
            (BlobAbsent, self._blob_answered),
            (DeviceState, self._state_seen),
            (DeviceClaim, self._claim_seen),
        )
        for kind, handler in handlers:
            self._peer.on(kind, _asynchronous(handler))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.interrupt)

    async def _connected(self) -> None:
        self._post.forget_attempts()
        if self._renewal is not None:
            self._renewal.connected()
        self._step(ev.Connected(self._now()))

    def _granted(self, received: Received) -> None:
        assert isinstance(received.message, WindowGrant)
        self._step(ev.Granted(self._now(), received.message, self._profiler.probe.read()))

    def _close_asked(self, received: Received) -> None:
        assert isinstance(received.message, WindowClose)
        self._step(ev.CloseAsked(self._now(), received.message.epoch))

    def _pushed(self, received: Received) -> None:
        assert isinstance(received.message, KernelPush)
        self._step(ev.KernelPushed(self._now(), received.message))

    def _acknowledged(self, received: Received) -> None:
        assert isinstance(received.message, Ack)
        self._post.acknowledged(received.message.ids)

    def _blob_answered(self, received: Received) -> None:
        assert isinstance(received.message, (BlobChunk, BlobAbsent))
        self._intake.accept(received.message)

    def _state_seen(self, received: Received) -> None:
        assert isinstance(received.message, DeviceState)
        self._step(ev.StateSeen(self._now(), received.message))

    def _claim_seen(self, received: Received) -> None:
        assert isinstance(received.message, DeviceClaim)
        self._step(ev.ClaimSeen(self._now(), received.message.instance))

    def _blob_ended(self, digest: str, failure: Failure | None) -> None:
        # Fetching may end while the machine's commands are still being performed: let it take breath first.
        at = self._now()
        event = ev.BlobArrived(at, digest) if failure is None else ev.BlobFailed(at, digest, failure)
        asyncio.get_running_loop().call_soon(self._step, event)

    def _step(self, event: ev.Event) -> None:
        try:
            for command in self._machine.step(event):
                self._perform(command)
        except Exception as error:
            # In a callback of the event loop it would only be logged, and the agent limp on.
            self._fail(error)

    # --- commands out -----------------------------------------------------------------------------------

    def _perform(self, command: do.Command) -> None:
        match command:
            case do.StoreWindow(epoch, job):
                self._memory.store_window(epoch, job)
                self._window_changed.set()
                if job is None:
                    self._profiler.rest()
            case do.Say(message):
                # It may be kept on disk first: whatever is to be profiled now is begun before that.
                asyncio.get_running_loop().call_soon(self._say, message)
            case do.Repeat(None):
                self._post.resend()
            case do.Repeat(str(candidate)):
                self._post.resend_result(self._machine.highest, candidate)
            case do.Fetch(ref):
                self._intake.fetch(ref)
            case do.Discard(digest):
                self._intake.drop(digest)
            case do.StartProfiling():
                self._spawn(self._profile(command))
            case do.StopProfiling():
                self._profiler.stop()
            case do.WakeAt(at):
                asyncio.get_running_loop().call_at(at, self._wake)
            case do.Refuse(what, reason):
                self._bus.gate.complain(what, self._source, reason)
            case do.GiveUp(reason):
                log.error(f"device {self._source}: {reason}; this agent ends", device=self._source)
                self._end(ExitCode.REFUSED)
            case do.Leave():
                self._end(ExitCode.FINE)

    def _say(self, message: Message) -> None:
        try:
            self._post.send(message)
        except Exception as error:
            self._fail(error)
        else:
            _tell(message)  # whoever reads of a result may rely on its being kept

    async def _profile(self, command: do.StartProfiling) -> None:
        push = command.push
        reference = None if push.reference is None else self._store.path(push.reference.digest)
        began = self._now()
        outcome = await self._profiler.run(
            Run(push, command.measure, self._store.path(push.blob.digest), reference)
        )
        self._busy_s += self._now() - began
        self._step(ev.ProfilingEnded(self._now(), outcome))

    def _wake(self) -> None:
        self._step(ev.Woke(self._now()))

    def _end(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    # --- at intervals -----------------------------------------------------------------------------------

    async def _resend(self) -> None:
        while True:
            await asyncio.sleep(RESEND_S)
            self._post.resend()

    async def _report(self) -> None:
        while True:
            began, busy = self._now(), self._busy_s
            self._window_changed.clear()
            period_s = IDLE_TELEMETRY_S if self._machine.window is None else BUSY_TELEMETRY_S
            try:
                await asyncio.wait_for(self._window_changed.wait(), period_s)
            except asyncio.TimeoutError:
                self._post.send(self._telemetry((self._busy_s - busy) / (self._now() - began)))

    def _telemetry(self, busy: float) -> Telemetry:
        current = self._machine.current
        return Telemetry(
            epoch=self._machine.highest,
            candidate=None if current is None else current.candidate,
            staged=len(self._machine.stage),
            outbox=len(self._post),
            busy=min(busy, 1.0),
            refused=self._peer.refused.total() + self._machine.refusals.total(),
            conditions=self._profiler.probe.read(),
        )

    # --- plumbing ---------------------------------------------------------------------------------------

    def _will(self) -> Will:
        gone = DeviceState(
            status=Status.OFFLINE,
            session=self._machine.bearer.session,
            instance=self._machine.bearer.instance,
            epoch=self._machine.highest,
            reason="the connection to the broker broke",
        )
        topic = topics.device_up(self._settings.site, self._settings.name, "state")
        payload = codec.encode(gone, id=new_id(), source=self._source, topic=topic, seal=self._seal)
        return Will(topic, payload, retain=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._worked)

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    async def _close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._intake.close()
        await self._profiler.close()
        self._outbox.close()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _asynchronous(handler: Callable[[Received], None]) -> Callable[[Received], Awaitable[None]]:
    async def handle(received: Received) -> None:
        handler(received)

    return handle


def _emptied(folder: Path) -> Path:
    """Make a folder for what does not outlive the agent, and clear what a former life left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _tell(message: Message) -> None:
    """Log what people who watch an agent want to know."""
    match message:
        case WindowOpened():
            log.info("window open", job=message.job, epoch=message.epoch)
        case WindowClosed(epoch=epoch, job=job):
            log.info("window closed", job=job, epoch=epoch, reason=message.reason, measured=message.measured)
        case KernelResult(failure=None, epoch=epoch, candidate=candidate):
            best_us = round(min(message.latencies) * 1e6, 1)
            log.info("measured", candidate=candidate, epoch=epoch, best_us=best_us, raced=message.raced)
        case KernelResult():
            failure = str(message.failure)
            log.info("failed", candidate=message.candidate, epoch=message.epoch, failure=failure)
