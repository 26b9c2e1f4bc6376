"""The shell around the agent's machine: it moves events and commands between its parts, decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog

from resonator.bus import topics
from resonator.bus.blobs import BlobStore
from resonator.bus.peer import Peer, Received
from resonator.cli.exits import ExitCode
from resonator.failures import Failure
from resonator.ids import device_id
from resonator.messages import (
    Ack,
    BlobAbsent,
    BlobChunk,
    Conditions,
    DeviceClaim,
    DeviceState,
    KernelPush,
    KernelResult,
    Message,
    Telemetry,
    WindowClose,
    WindowClosed,
    WindowGrant,
    WindowOpened,
)
from resonator.trust import Credentials
from resonator_agent import commands as do
from resonator_agent import events as ev
from resonator_agent.intake import Intake
from resonator_agent.machine import Machine, State
from resonator_agent.memory import Memory
from resonator_agent.outbox import Outbox
from resonator_agent.post import RESEND_S, Post
from resonator_agent.profiler import Run
from resonator_agent.renewal import Renewal
from resonator_agent.worker_process import Limits

log = structlog.get_logger(__name__)

BUSY_TELEMETRY_S = 5.0
IDLE_TELEMETRY_S = 60.0
ANNOUNCE_S = 300.0
"""How often the device's state is said again: on its way to the hub a broker may have dropped it."""
FAREWELL_S = 5.0
"""How long the last words may take to reach the broker."""


@dataclass(frozen=True)
class Settings:
    """What an agent is started with."""

    name: str
    site: str
    broker: str
    state: Path
    limits: Limits
    credentials: Credentials | None = None

    @property
    def source(self) -> str:
        """What the device is called on the bus."""
        return str(device_id(self.site, self.name))


class Profiles(Protocol):
    """Runs kernels, one at a time; see `resonator_agent.profiler.Profiler`."""

    @property
    def probe(self) -> Probes:
        """What reads the box's conditions."""

    async def start(self) -> None:
        """Make ready; raises ResonatorError where that is not possible."""

    async def run(self, run: Run) -> ev.Outcome | None:
        """Run a kernel and return what came of it, or None when it was stopped."""

    def stop(self) -> None:
        """Give up the kernel being run, if there is one."""

    def rest(self) -> None:
        """Free what was kept for the kernels of a window that is over."""

    async def close(self) -> None:
        """End."""


class Probes(Protocol):
    """Reads a box's conditions; see `resonator_agent.conditions.ConditionsProbe`."""

    def read(self) -> Conditions:
        """Return the conditions right now."""


@dataclass(frozen=True)
class Parts:
    """What an agent is put together of; see `resonator_agent.bootstrap`."""

    machine: Machine
    memory: Memory
    outbox: Outbox
    blobs: BlobStore
    peer: Peer
    profiler: Profiles
    renewal: Renewal | None = None


class Agent:
    """One device on the bus; `run` serves it until it is drained or its name is lost."""

    def __init__(self, settings: Settings, parts: Parts):
        self._settings = settings
        self._machine = parts.machine
        self._memory = parts.memory
        self._outbox = parts.outbox
        self._store = parts.blobs
        self._peer = parts.peer
        self._bus = parts.peer.bus
        self._profiler = parts.profiler
        self._renewal = parts.renewal
        self._post = Post(self._peer, self._outbox, settings.site, settings.name)
        self._intake = Intake(self._store, self._post.send, self._blob_ended)
        self._tasks: set[asyncio.Task[None]] = set()
        self._window_changed = asyncio.Event()
        self._interrupts = 0
        self._busy_s = 0.0
        self._ended: asyncio.Future[int]

    async def run(self, ready: Callable[[], None] = lambda: None) -> int:
        """Serve until the end and return the exit code; raises ResonatorError if the box cannot profile.

        `ready` is called once it can, which takes seconds; whether there is a broker is another matter.
        """
        self._ended = asyncio.get_running_loop().create_future()
        self._listen()
        await self._profiler.start()
        ready()
        try:
            await self._bus.subscribe(*topics.for_device(self._settings.site, self._settings.name))
            self._bus.on_connect(self._connected)
            async with self._bus:
                for work in (self._peer.serve(), self._resend(), self._report(), self._announce()):
                    self._spawn(work)
                if self._renewal is not None:
                    self._spawn(self._renewal.run())
                code = await self._ended
                await self._post.flush(FAREWELL_S if self._interrupts < 2 else 1.0)
                return ExitCode.INTERRUPTED if self._interrupts > 1 else code
        finally:
            await self._close()

    def summary(self) -> str:
        """Say in a sentence how the box fares."""
        window, current = self._machine.window, self._machine.current
        doing = "idle" if window is None else f"window {window.grant.epoch} for job {window.grant.job}"
        measuring = "" if current is None else f", measuring {current.candidate}"
        link = "" if self._bus.connected else "; the broker is not connected"
        return f"{doing}{measuring}, {len(self._post)} messages not acknowledged{link}"

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
        self._peer.on_bridge(lambda bridge, up: self._post.note_link(bridge.name, up))

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
                self._bus.gate.complain(what, self._settings.source, reason)
            case do.GiveUp(reason):
                device = self._settings.source
                log.error(f"device {device}: {reason}; this agent ends", device=device)
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

    async def _announce(self) -> None:
        while True:
            await asyncio.sleep(ANNOUNCE_S)
            if self._machine.state not in (State.CLAIMING, State.GONE):
                self._post.send(self._machine.announcement())

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
