"""A client's connection to a broker, in place of the one over MQTT: `MqttBus` does not see a difference."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from resonator.bus.connection import ANSWER_TIMEOUT_S, ConnectionLost
from resonator.bus.port import Delivery, Will
from resonator.bus.url import BrokerAddress
from resonator_hub.broker.filters import matches
from simulation.world.process import CURRENT
from simulation.world.wire import Lane

if TYPE_CHECKING:
    from simulation.world.network import Network


class Connection:
    """See `resonator.bus.connection.Connection`; belongs to the process that makes it, and falls with it."""

    def __init__(
        self,
        network: Network,
        address: BrokerAddress,
        client_id: str,
        keepalive_s: int,
        will: Will | None,
        sink: Callable[[Delivery], None],
        _tls: object = None,
    ) -> None:
        process = CURRENT.get()
        assert process is not None, "only processes connect"
        self.process = process
        self.client_id = client_id
        self.keepalive_s = keepalive_s
        self.will = will
        self.filters: dict[str, None] = {}
        self._network = network
        self._broker = network.brokers[address.host]
        self.wire = network.wire(process.name, address.host)
        self._sink = sink
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[None]] = {}
        self._up = Lane(self.wire)
        self._down = Lane(self.wire, process.context)
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._open = True

    # --- for the bus --------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect and wait for the broker's answer; raises ConnectionLost."""
        self.wire.ends.append(self)
        self.process.at_death.append(self._die)
        try:
            if not self._broker.alive:
                await asyncio.sleep(self.wire.latency_s)
                raise ConnectionLost("connection refused")
            self._up.send(self._broker.accept, self)
            await asyncio.wait_for(self._answered(0), ANSWER_TIMEOUT_S)
        except asyncio.TimeoutError:
            self._hang_up()
            raise ConnectionLost("timed out") from None
        except BaseException:
            self._hang_up()
            raise

    async def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        """Publish, and with QoS 1 wait for the acknowledgement; raises ConnectionLost."""
        self._network.moment("publish")
        if not self._open:
            raise ConnectionLost(self._reason())
        number = next(self._numbers) if qos else 0
        self._up.send(self._broker.publish, self, topic, payload, retain, number)
        if number:
            await self._answered(number)

    async def subscribe(self, filters: Iterable[str]) -> list[str]:
        """Subscribe; nothing is ever refused. Raises ConnectionLost."""
        number = next(self._numbers)
        self._up.send(self._broker.subscribe, self, tuple(filters), number)
        await self._answered(number)
        return []

    async def ended(self) -> str:
        """Wait until the connection has ended, and return the reason."""
        return await asyncio.shield(self._lost)

    def leave(self, reason: str) -> None:
        """End the connection from this side."""
        self._end(reason)

    async def close(self) -> None:
        """Say goodbye, or hang up where that is not possible."""
        if self._open:
            self._up.send(self._broker.leave, self)
        self._hang_up()

    async def _answered(self, number: int) -> None:
        if not self._open:
            raise ConnectionLost(self._reason())
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            await answer
        finally:
            self._answers.pop(number, None)

    def _reason(self) -> str:
        return self._lost.result() if self._lost.done() else "it was closed"

    # --- for the broker -----------------------------------------------------------------------------------

    def wants(self, topic: str) -> bool:
        """Whether this client has subscribed to a topic."""
        return any(matches(name, topic) for name in self.filters)

    def accepted(self) -> None:
        """The broker lets this client in."""
        self.answer(0)

    def answer(self, number: int) -> None:
        """The broker has acknowledged a packet."""
        self._down.send(self._resolve, number)

    def deliver(self, topic: str, payload: bytes, retained: bool) -> None:
        """Carry a message to this client."""
        self._down.send(self._sink, Delivery(topic, payload, retained))

    def break_off(self, reason: str) -> None:
        """The broker hangs up, which is noticed at the other end if the wire is whole."""
        self._up.close()
        self._down.send(self._end, reason)

    # --- from the world -----------------------------------------------------------------------------------

    def silent_for_broker(self) -> None:
        """The broker has heard nothing for too long."""
        if self._open:
            self._broker.lose(self)
            self.break_off("the broker had given this client up")

    def silent_for_client(self) -> None:
        """This client has heard nothing for too long."""
        asyncio.get_running_loop().call_soon(
            self._end, "the broker does not answer", context=self.process.context
        )

    # --- within -------------------------------------------------------------------------------------------

    def _resolve(self, number: int) -> None:
        answer = self._answers.get(number)
        if answer is not None and not answer.done():
            answer.set_result(None)

    def _end(self, reason: str) -> None:
        if self._lost.done():
            return
        self._lost.set_result(reason)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionLost(reason))
        self._hang_up()

    def _die(self) -> None:
        """The process is gone: what it has sent arrives, then its end."""
        if self._open:
            self._up.send(self._broker.lose, self)
        self._hang_up()

    def _hang_up(self) -> None:
        if self._open:
            self._open = False
            self._down.close()
            self.wire.ends.remove(self)
            self.process.at_death.remove(self._die)
