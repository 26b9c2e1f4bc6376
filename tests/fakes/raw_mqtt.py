"""A client without manners: MQTT packets, or any bytes, straight on a socket."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import mqtt5

from resonator.bus.url import parse_broker_url
from resonator_hub.broker.framing import Framer

ANSWER_S = 10.0


class RawClient:
    """One socket to a broker; nothing is answered by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def dial(cls, url: str) -> RawClient:
        address = parse_broker_url(url)
        return cls(*await asyncio.open_connection(address.host, address.port))

    @classmethod
    async def connect(cls, url: str, client_id: str, **options: Any) -> RawClient:
        """Dial and introduce; the CONNACK is in `.connack`."""
        client = await cls.dial(url)
        client.send(mqtt5.ConnectPacket(client_id, **options))
        client.connack = await client.receive(mqtt5.ConnAckPacket)
        return client

    connack: Any = None

    def send(self, packet: Any) -> None:
        self._writer.write(packet if isinstance(packet, bytes) else packet.write())

    async def receive(self, kind: type | None = None) -> Any:
        """Return the next packet, None at the end of the stream; another kind than `kind` is an error."""
        packet = await asyncio.wait_for(self._next(), ANSWER_S)
        assert kind is None or isinstance(packet, kind), packet
        return packet

    async def _next(self) -> Any:
        try:
            head = await self._reader.readexactly(2)
            while head[-1] & 0x80:
                head += await self._reader.readexactly(1)
            length = sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(head[1:]))
            frame = head + await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        packet, _ = mqtt5.read(memoryview(frame))
        return packet

    async def subscribe(self, pattern: str, **options: Any) -> Any:
        """Subscribe and return the reason code."""
        self.send(mqtt5.SubscribePacket(1, [mqtt5.TopicFilter(pattern, **options)]))
        return (await self.receive(mqtt5.SubAckPacket)).reason_codes[0]

    async def ping(self) -> None:
        """Make sure that all that was sent has been handled; only when nothing else is on its way."""
        self.send(mqtt5.PingReqPacket())
        await self.receive(mqtt5.PingRespPacket)

    def stop_reading(self) -> None:
        """Let what arrives pile up."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def resume_reading(self) -> None:
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]

    async def hang_up(self) -> None:
        """Close the socket without a goodbye."""
        self._writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


class SlowBroker:
    """A broker for one publisher, that takes each message but acknowledges none before `most` wait for it.

    `receive_max` is what it says it is willing to take at once; `waiting` are the ids it owes an answer, and
    `peak` how many they ever were.
    """

    def __init__(self, most: int, receive_max: int = 65535) -> None:
        self._most = most
        self._receive_max = receive_max
        self.waiting: list[int] = []
        self.peak = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Live through one connection."""
        framer = Framer(1 << 20)
        while data := await reader.read(1 << 16):
            for packet in framer.feed(data):
                for answer in self._answers(packet):
                    writer.write(answer.write())
        writer.close()

    def _answers(self, packet: Any) -> list[Any]:
        if isinstance(packet, mqtt5.ConnectPacket):
            return [mqtt5.ConnAckPacket(receive_max=self._receive_max)]
        if isinstance(packet, mqtt5.PublishPacket):
            assert packet.packet_id is not None
            self.waiting.append(packet.packet_id)
            self.peak = max(self.peak, len(self.waiting))
        if len(self.waiting) < self._most:
            return []
        answered, self.waiting = self.waiting, []
        return [mqtt5.PubAckPacket(packet_id) for packet_id in answered]
