"""A simulated agent: the real machine, codec, back-off and resending, around a box that waits."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import mqtt5

from load.session import Session
from resonator.bus import codec, topics
from resonator.bus.backoff import Backoff
from resonator.bus.peer import new_id
from resonator.failures import Failure, FailureKind
from resonator.ids import device_id
from resonator.messages import (
    Ack,
    BlobAbsent,
    BlobChunk,
    BlobRef,
    BlobRequest,
    DeviceState,
    Identity,
    KernelPush,
    KernelResult,
    Message,
    Offer,
    Status,
    Telemetry,
    WindowClose,
    WindowClosed,
    WindowGrant,
)
from resonator_agent import commands as do
from resonator_agent import events as ev
from resonator_agent.machine import Machine
from resonator_agent.naming import Bearer
from resonator_agent.post import RESEND_S
from resonator_agent.runtime import BUSY_TELEMETRY_S, IDLE_TELEMETRY_S

CREDIT = 64 * 2**20
KEEPALIVE_S = 15
_RACED = 0.6
"""The share of kernels whose first short runs show that they are slow; a search finds about as many."""
_MEANS = 9
"""How many means a full measurement consists of."""
IDENTITY = Identity(
    architecture="x86_64",
    cpu_model="simulated",
    cores=4,
    cores_used=(0, 1, 2, 3),
    memory=2**32,
    tvm_version="0",
    agent_version="0",
    offers=(Offer(kind="cpu", target='{"kind":"llvm","mcpu":"x86-64-v3","num-cores":4}'),),
)


@dataclass(frozen=True)
class Plan:
    """Where the fleet lives, and how many seconds a kernel takes its boxes at least and at most."""

    host: str
    port: int
    site: str
    kernel_s: tuple[float, float]


@dataclass
class Tally:
    """What the agents of one process have done; times in seconds."""

    said: Counter[str] = field(default_factory=Counter)
    heard: Counter[str] = field(default_factory=Counter)
    connected: int = 0
    last_connected_at: float = 0.0
    results: list[str] = field(default_factory=list)
    """`device epoch candidate` of everything measured."""
    unacknowledged: int = 0
    next_kernel_s: list[float] = field(default_factory=list)
    """From a result on its way to the next kernel at the same box, while its window goes on."""
    next_window_s: list[float] = field(default_factory=list)
    """The same where a window was closed in between."""
    acknowledged_s: list[float] = field(default_factory=list)
    """From a result on its way to the hub's word that it is journalled."""
    idle_s: list[float] = field(default_factory=list)
    """From the end of a kernel to the beginning of the next one at the same box."""
    busy_s: float = 0.0

    def forget_waits(self) -> None:
        """Begin anew to note how long agents wait."""
        for waits in (self.next_kernel_s, self.next_window_s, self.acknowledged_s, self.idle_s):
            waits.clear()


class Agent:
    """One box on its own connection; it lives as long as the process."""

    def __init__(self, number: int, plan: Plan, tally: Tally) -> None:
        self._plan = plan
        self._tally = tally
        self._name = f"box-{number:05}"
        self._source = str(device_id(plan.site, self._name))
        self._random = random.Random(number)
        self._backoff = Backoff(random=self._random)
        self._machine = Machine(IDENTITY, bearer=Bearer(1, new_id()), credit=CREDIT)
        self._session: Session | None = None
        self._ready = False
        self._loop = asyncio.get_running_loop()
        self._dialling: asyncio.Task[None] | None = None
        self._outbox: dict[str, tuple[Message, float]] = {}
        self._last_result: tuple[int, float] | None = None
        self._measuring: asyncio.TimerHandle | None = None
        self._ended_at: float | None = None
        self._telemetry_due = self._loop.time() + self._random.uniform(0, BUSY_TELEMETRY_S)
        self._seq = 0

    def dial(self) -> None:
        """Begin to connect."""
        self._dialling = self._loop.create_task(self._dial())

    async def _dial(self) -> None:
        greeting = mqtt5.ConnectPacket(
            f"agent-{self._name}", clean_start=True, keep_alive=KEEPALIVE_S, will=self._will()
        )
        filters = topics.for_device(self._plan.site, self._name)
        self._session = Session(greeting, filters, self)
        session = self._session
        try:
            await self._loop.create_connection(lambda: session, self._plan.host, self._plan.port)
        except OSError:
            self._loop.call_later(self._backoff.next(), self.dial)

    # --- the connection -------------------------------------------------------------------------------------

    def ready(self) -> None:
        """Hear that the broker has taken the client."""
        self._tally.connected += 1
        self._tally.last_connected_at = time.monotonic()
        self._backoff.reset()
        self._outbox = {name: (message, 0.0) for name, (message, _) in self._outbox.items()}
        self._ready = True
        self._step(ev.Connected(self._now()))

    def lost(self) -> None:
        """Dial again, after a while."""
        if self._ready:
            self._tally.connected -= 1
            self._ready = False
        self._loop.call_later(self._backoff.next(), self.dial)

    def heard(self, topic: str, payload: bytes) -> None:
        """Take a message."""
        message = codec.decode(payload).message
        self._tally.heard[message.wire] += 1
        match message:
            case KernelPush():
                self._note_kernel(message)
                self._step(ev.KernelPushed(self._now(), message))
            case Ack():
                self._acknowledged(message.ids)
            case WindowGrant():
                self._step(ev.Granted(self._now(), message))
            case WindowClose():
                self._step(ev.CloseAsked(self._now(), message.epoch))
            case DeviceState():
                self._step(ev.StateSeen(self._now(), message))
            case BlobChunk():
                self._step(ev.BlobArrived(self._now(), message.digest))
            case BlobAbsent():
                failure = Failure(kind=FailureKind.BLOB_CORRUPT, detail="the hub does not have the kernel")
                self._step(ev.BlobFailed(self._now(), message.digest, failure))

    def tick(self, now: float) -> None:
        """Do what is due: say again what was not acknowledged, and how the box is."""
        for name, (message, at) in list(self._outbox.items()):
            if self._ready and now - at >= RESEND_S:
                self._publish(message, name)
        if now >= self._telemetry_due:
            period_s = IDLE_TELEMETRY_S if self._machine.window is None else BUSY_TELEMETRY_S
            self._telemetry_due = now + period_s
            self._say(Telemetry(epoch=self._machine.highest, staged=len(self._machine.stage)))

    def ping(self) -> None:
        """Keep the connection alive."""
        if self._session is not None and self._ready:
            self._session.ping()

    # --- the machine ----------------------------------------------------------------------------------------

    def _step(self, event: ev.Event) -> None:
        for command in self._machine.step(event):
            self._perform(command)

    def _perform(self, command: do.Command) -> None:
        match command:
            case do.Say(message):
                self._say(message)
            case do.Fetch(ref):
                self._fetch(ref)
            case do.StartProfiling(push, _):
                if self._ended_at is not None:
                    self._tally.idle_s.append(self._now() - self._ended_at)
                took_s = self._random.uniform(*self._plan.kernel_s)
                self._measuring = self._loop.call_later(took_s, self._measured, push, took_s)
            case do.StopProfiling():
                if self._measuring is not None:
                    self._measuring.cancel()
                    self._loop.call_soon(lambda: self._step(ev.ProfilingEnded(self._now(), None)))
            case do.WakeAt(at):
                self._loop.call_at(at, lambda: self._step(ev.Woke(self._now())))
            case do.Repeat(None):
                self.tick(self._now())
            case do.Repeat(str(candidate)):
                for name, (message, _) in list(self._outbox.items()):
                    if isinstance(message, KernelResult) and message.candidate == candidate:
                        self._publish(message, name)
            case do.GiveUp(reason):
                raise RuntimeError(f"{self._name}: {reason}")

    def _fetch(self, ref: BlobRef) -> None:
        if ref.data is not None:
            self._loop.call_soon(lambda: self._step(ev.BlobArrived(self._now(), ref.digest)))
        else:
            self._say(BlobRequest(digest=ref.digest, offset=0, length=ref.size))

    def _measured(self, push: KernelPush, took_s: float) -> None:
        self._measuring = None
        self._ended_at = self._now()
        self._tally.busy_s += took_s
        self._step(ev.ProfilingEnded(self._now(), self._outcome(push, took_s)))

    def _outcome(self, push: KernelPush, took_s: float) -> ev.Outcome:
        """Make up a latency: a search finds something better with every round, so that it goes on."""
        number = 0 if push.model else int(push.candidate.rpartition("/c")[2])
        latency_s = took_s / _MEANS / (2 + number / 16) * self._random.uniform(0.8, 1.0)
        if push.model:
            return ev.Outcome(latencies=(latency_s,), error=1e-7, device_time=took_s)
        raced = push.race_s is not None and self._random.random() < _RACED
        latencies = (latency_s,) * (1 if raced else _MEANS)
        return ev.Outcome(latencies=latencies, raced=raced, device_time=took_s)

    # --- what is said ---------------------------------------------------------------------------------------

    def _say(self, message: Message) -> None:
        if isinstance(message, (KernelResult, WindowClosed)):
            self._tally.unacknowledged += 1
            self._publish(message, new_id())
        else:
            self._publish(message, None)
        if isinstance(message, KernelResult):
            self._tally.results.append(f"{self._source} {message.epoch} {message.candidate}")
            if self._last_result is None:
                self._last_result = (message.epoch, self._now())

    def _publish(self, message: Message, name: str | None) -> None:
        if name is not None:
            self._outbox[name] = (message, self._now())
        if self._session is None or not self._ready:
            return
        self._seq += 1
        self._tally.said[message.wire] += 1
        payload = codec.encode(message, id=name or new_id(), source=self._source, seq=self._seq)
        topic = topics.device_up(self._plan.site, self._name, _channel(message))
        qos = 0 if isinstance(message, Telemetry) else 1
        self._session.publish(topic, payload, qos=qos, retain=isinstance(message, DeviceState))

    def _note_kernel(self, push: KernelPush) -> None:
        if self._last_result is None:
            return
        epoch, at = self._last_result
        self._last_result = None
        waited = self._tally.next_kernel_s if epoch == push.epoch else self._tally.next_window_s
        waited.append(self._now() - at)

    def _acknowledged(self, ids: tuple[str, ...]) -> None:
        for name in ids:
            kept = self._outbox.pop(name, None)
            if kept is not None:
                self._tally.unacknowledged -= 1
                if isinstance(kept[0], KernelResult):
                    self._tally.acknowledged_s.append(self._now() - kept[1])

    def _will(self) -> Any:
        bearer = self._machine.bearer
        gone = DeviceState(
            status=Status.OFFLINE,
            session=bearer.session,
            instance=bearer.instance,
            epoch=self._machine.highest,
            reason="the connection to the broker broke",
        )
        topic = topics.device_up(self._plan.site, self._name, "state")
        payload = codec.encode(gone, id=new_id(), source=self._source)
        return mqtt5.Will(topic, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE, retain=True)

    def _now(self) -> float:
        return self._loop.time()


def _channel(message: Message) -> str:
    """Return where a message belongs; `device.claim` is a state, and whatever begins with window a window."""
    what = message.wire.partition(".")[0]
    match message:
        case KernelResult():
            return "result"
        case Telemetry():
            return "telemetry"
    return "state" if what == "device" else what
