"""One party on the bus: it speaks in messages, hears each once, and counts what it refuses."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog

from resonator.bus import bridge, codec, topics
from resonator.bus.gate import sender
from resonator.bus.port import Bus, Delivery
from resonator.errors import BusUnreachable, MessageInvalid, Refused, ResonatorError
from resonator.messages import Message, Rejected
from resonator.trust.party import Party
from resonator.trust.seal import Seal, SignatureInvalid

log = structlog.get_logger(__name__)
M = TypeVar("M", bound=Message)
REMEMBERED = 2000
"""How many message ids of each sender a party keeps to recognise repetitions."""
REMEMBERED_OF_ALL = 400_000
"""How many of all senders together, of each the latest: 100 MB, where 2,000 boxes would take 1 GB."""
SENDERS = 20_000
"""Of how many senders; those not heard for longest are forgotten first."""
TURN_S = 0.005
"""How long messages are handled before all else that the program does has its turn."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message as it came in: what it says, from whom, on which topic."""

    message: Message
    id: str
    source: str
    topic: str
    address: topics.Address
    reply_to: str | None
    corr: str | None
    retained: bool
    repeated: bool
    """Whether this id was heard before: answer again, but do not act twice."""
    party: Party | None = None
    """Who signed it; None where signatures are not asked for."""
    at: float | None = None
    """When it was said by its sender's clock, in seconds since the epoch; signed messages tell."""


Handler = Callable[[Received], Awaitable[None]]
BridgeHandler = Callable[[topics.Address, bool], None]


def new_id() -> str:
    """Make a message id that no other party makes."""
    return uuid.uuid4().hex


class Peer:
    """Sends and hears messages as `source` on a bus; handlers run one at a time, in order of arrival.

    With a `seal` it signs what it says, and hears only what is signed by those who may say it.
    """

    def __init__(self, bus: Bus, source: str, seal: Seal | None = None) -> None:
        self.bus = bus
        self.source = source
        self._seal = seal
        self._seq = 0
        self._handlers: dict[type[Message], Handler] = {}
        self._on_bridge: BridgeHandler | None = None
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._heard: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()
        self._posting: set[asyncio.Task[None]] = set()

    @property
    def is_sealed(self) -> bool:
        """Whether it hears nothing that is not signed."""
        return self._seal is not None

    @property
    def refused(self) -> Counter[str]:
        """How many messages were not let in, or not acted upon, by reason."""
        return self.bus.gate.refused

    def on(self, kind: type[Message], handler: Handler) -> None:
        """Have messages of a kind handled; a repetition is marked `repeated`, not hidden."""
        self._handlers[kind] = handler

    def on_bridge(self, handler: BridgeHandler) -> None:
        """Have it handled when the broker of a site says that its link is there (True) or not."""
        self._on_bridge = handler

    async def send(
        self,
        topic: str,
        message: Message,
        *,
        message_id: str | None = None,
        corr: str | None = None,
        reply_to: str | None = None,
        retain: bool = False,
        qos: int = 1,
    ) -> str:
        """Publish a message and return its id; a retry passes the id of the first attempt."""
        self._seq += 1
        sent = message_id or new_id()
        payload = codec.encode(
            message,
            id=sent,
            source=self.source,
            seq=self._seq,
            reply_to=reply_to,
            corr=corr,
            at=None if self._seal is None else time.time(),
            topic=topic,
            seal=self._seal,
        )
        await self.bus.publish(topic, payload, qos=qos, retain=retain)
        return sent

    def post(
        self, topic: str, message: Message, *, corr: str | None = None, reply_to: str | None = None
    ) -> None:
        """Send without waiting for the broker: a handler that waits holds up all that is heard after it.

        What is posted keeps its order. A message that cannot be sent is logged; whoever needs it asks again.
        """
        task = asyncio.ensure_future(self._post(topic, message, corr, reply_to))
        self._posting.add(task)
        task.add_done_callback(self._posting.discard)

    async def _post(self, topic: str, message: Message, corr: str | None, reply_to: str | None) -> None:
        try:
            await self.send(topic, message, corr=corr, reply_to=reply_to)
        except ResonatorError as error:
            log.warning("message not sent", type=message.wire, topic=topic, reason=str(error))

    async def request(
        self,
        topic: str,
        message: Message,
        answer: type[M],
        *,
        reply_to: str,
        timeout: float,
        attempts: int = 3,
    ) -> M:
        """Ask, and wait for the answer; asked again with the same id after `timeout` seconds each time.

        Raises `Refused` with the peer's reason, and `BusUnreachable` when no answer came.
        """
        sent = new_id()
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[sent] = future
        try:
            for _ in range(attempts):
                await self.send(topic, message, message_id=sent, reply_to=reply_to)
                done, _pending = await asyncio.wait([future], timeout=timeout)
                if done:
                    return _expect(future.result(), answer)
            raise BusUnreachable(
                f"no answer to {message.wire} after {attempts} attempts of {timeout:g} s each"
            )
        finally:
            del self._waiting[sent]

    async def serve(self) -> None:
        """Hear messages until cancelled; what is none of ours is counted, logged and changes nothing."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async for delivery in self.bus.deliveries():
                await self._take(delivery)
                if loop.time() - began > TURN_S:
                    await asyncio.sleep(0)
                    began = loop.time()
        finally:
            for task in self._posting:
                task.cancel()

    async def _take(self, delivery: Delivery) -> None:
        try:
            address = topics.parse(delivery.topic)
            if address.kind == "bridge" and self._on_bridge is not None:
                self._on_bridge(address, bridge.linked(delivery.payload))
                return
            received = self._read(delivery, address)
        except MessageInvalid as error:
            why = "not signed as it must be" if isinstance(error, SignatureInvalid) else "invalid"
            self.refuse(why, delivery.topic, str(error))
        else:
            await self._hear(received)

    def refuse(self, why: str, topic: str, detail: str) -> None:
        """Count and log a message that was not acted upon; its sender may say less for a while."""
        self.bus.gate.refuse(why, topic, detail)

    def _read(self, delivery: Delivery, address: topics.Address) -> Received:
        check = None if self._seal is None else partial(self._seal.check, delivery.topic, address)
        decoded = codec.decode(delivery.payload, check)
        repeated = self._note(delivery.topic, decoded.id)
        if repeated and not delivery.retained:
            self.refused["repeated"] += 1
        return Received(
            decoded.message,
            decoded.id,
            decoded.source,
            delivery.topic,
            address,
            decoded.reply_to,
            decoded.corr,
            delivery.retained,
            repeated,
            decoded.party,
            decoded.at,
        )

    def _note(self, topic: str, message_id: str) -> bool:
        """Return whether a sender has said this before: one that says much makes nobody else forgotten."""
        whose = sender(topic)
        heard = self._heard.setdefault(whose, OrderedDict())
        self._heard.move_to_end(whose)
        if len(self._heard) > SENDERS:
            self._heard.popitem(last=False)
        repeated = message_id in heard
        heard[message_id] = None
        heard.move_to_end(message_id)
        most = min(REMEMBERED, REMEMBERED_OF_ALL // len(self._heard))
        while len(heard) > most:
            heard.popitem(last=False)
        return repeated

    async def _hear(self, received: Received) -> None:
        future = self._waiting.get(received.corr or "")
        if future is not None:
            if not future.done():
                future.set_result(received.message)
            return
        handler = self._handlers.get(type(received.message))
        if handler is None:
            self.refuse("unexpected", received.topic, f"{received.message.wire} is not for {self.source}")
            return
        await handler(received)


def _expect(message: Message, answer: type[M]) -> M:
    if isinstance(message, Rejected):
        raise Refused(message.failure.detail or message.failure.kind.value)
    if not isinstance(message, answer):
        raise Refused(f"the answer was a {message.wire}, not a {answer.wire}")
    return message
