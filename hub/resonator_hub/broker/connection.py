"""One client's TCP connection: handshake, packets in and out, keepalive, and a proper end."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, cast

import mqtt5
import structlog

from resonator_hub.broker.filters import valid_topic
from resonator_hub.broker.framing import CONNECT, Framer, ProtocolViolation
from resonator_hub.broker.session import Message, Session

if TYPE_CHECKING:
    from resonator_hub.broker.embedded import EmbeddedBroker

_log = structlog.get_logger(__name__)

HANDSHAKE_S = 10.0
LINGER_S = 2.0
SEND_BUFFER_BYTES = 1024 * 1024
PUBLISH_RATE, PUBLISH_BURST = 2000.0, 5000.0
"""How many messages a second one client is listened to for long, and how many it may be ahead."""
_NO_LIMIT = 1 << 32


class Connection(asyncio.Protocol):
    """Speaks MQTT 5 with one client; what a packet means beyond this connection is the broker's.

    PUBLISH is acknowledged in the same breath, so that a client never has more unacknowledged messages here
    than the receive maximum we announced.
    """

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.session: Session | None = None
        self.will: mqtt5.Will | None = None
        self.receive_max = 0
        self.max_packet_bytes = _NO_LIMIT
        self._broker = broker
        self._framer = Framer(broker.max_packet_bytes)
        self._transport: asyncio.Transport | None = None
        self._congested = False
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None
        self._keep_alive_s = 0
        self._last_heard = 0.0
        self._loop = asyncio.get_running_loop()
        self._ahead = 0.0
        self._ahead_at = self._loop.time()

    # --- what asyncio calls ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has dialled in: it has some seconds to introduce itself."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)
        # Without it a round trip on loopback takes 88 ms instead of 0.4.
        self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._broker.arrived(self)
        self._timer = self._loop.call_later(HANDSHAKE_S, self.abort)

    def data_received(self, data: bytes) -> None:
        """Handle the packets that `data` completes."""
        self._last_heard = self._loop.time()
        try:
            for packet in self._framer.feed(data):
                self._handle(packet)
                if self._closing:
                    return
        except ProtocolViolation as violation:
            self._refuse(violation)
        else:
            self._slow_down()

    def _slow_down(self) -> None:
        """Read nothing for a while from a client that is far ahead: it shares this process with the hub."""
        now = self._loop.time()
        self._ahead = max(0.0, self._ahead - (now - self._ahead_at) * PUBLISH_RATE)
        self._ahead_at = now
        if self._ahead > PUBLISH_BURST and self._transport is not None:
            self._transport.pause_reading()
            self._loop.call_later((self._ahead - PUBLISH_BURST) / PUBLISH_RATE, self._read_on)

    def _read_on(self) -> None:
        if self._transport is not None and not self._closing:
            self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is gone."""
        self._depart()
        self._broker.gone(self)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is sent to."""
        self._congested = True

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._congested = False
        if self.session is not None:
            self.session.pump()

    # --- out ------------------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """Whether the socket takes more."""
        return not (self._congested or self._closing)

    def send(self, data: bytes) -> None:
        """Write one encoded packet; a client that never reads its acknowledgements is cut off."""
        if self._transport is None or self._closing:
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > 2 * self._broker.max_packet_bytes + SEND_BUFFER_BYTES:
            _log.warning("cut off a client that does not read", client_id=self._name)
            self.abort()

    def close(self, reason: mqtt5.DisconnectReasonCode | None, detail: str = "") -> None:
        """End the connection, with a DISCONNECT packet if a reason is given; the will stands."""
        if self._closing or self._transport is None:
            return
        if reason is not None:
            self.send(mqtt5.DisconnectPacket(reason_code=reason, reason_str=detail or None).write())
        self._depart()
        self._transport.close()
        # close() waits for the client to read what was sent; a dead one never does.
        self._timer = self._loop.call_later(LINGER_S, self._transport.abort)

    def abort(self) -> None:
        """Cut the connection without a word; the will is published."""
        self._depart()
        if self._transport is not None:
            self._transport.abort()

    def _depart(self) -> None:
        """Nothing more is heard from or sent to this client: settle its session and its will."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._closing:
            self._closing = True
            self._broker.departed(self)

    def _refuse(self, violation: ProtocolViolation) -> None:
        _log.warning(f"a client broke the protocol: {violation}", client_id=self._name)
        if self.session is not None:
            again = violation.packet_type == CONNECT  # whatever else is wrong with a second CONNECT
            reason = mqtt5.DisconnectReasonCode.PROTOCOL_ERROR if again else violation.reason
            self.close(mqtt5.DisconnectReasonCode(int(reason)), str(violation))
        elif violation.packet_type == CONNECT:
            self._turn_away(mqtt5.ConnAckReasonCode(violation.reason), str(violation))
        else:  # before CONNECT there is nothing to say in MQTT
            self.close(None)

    def _turn_away(self, reason: mqtt5.ConnAckReasonCode, detail: str) -> None:
        self.send(mqtt5.ConnAckPacket(reason_code=reason, reason_str=detail).write())
        self.close(None)

    @property
    def _name(self) -> str:
        return self.session.client_id if self.session is not None else "(not introduced)"

    # --- in -------------------------------------------------------------------------------------------

    def _handle(self, packet: mqtt5.Packet) -> None:
        if self.session is None:
            self._handshake(packet)
        elif isinstance(packet, mqtt5.PublishPacket):
            self._publish(self.session, packet)
        elif isinstance(packet, mqtt5.PubAckPacket):
            self.session.acknowledge(packet.packet_id)
        elif isinstance(packet, mqtt5.SubscribePacket):
            self._broker.subscribe(self, self.session, packet)
        elif isinstance(packet, mqtt5.UnsubscribePacket):
            self._broker.unsubscribe(self, self.session, packet)
        elif isinstance(packet, mqtt5.PingReqPacket):
            self.send(mqtt5.PingRespPacket().write())
        elif isinstance(packet, mqtt5.DisconnectPacket):
            self._goodbye(self.session, packet)
        else:
            raise _broken(f"{type(packet).__name__} is not for a client to send here")

    def _handshake(self, packet: mqtt5.Packet) -> None:
        if not isinstance(packet, mqtt5.ConnectPacket):
            raise _broken(f"the first packet is {type(packet).__name__}, not CONNECT")
        if packet.authentication_method is not None:
            self._turn_away(
                mqtt5.ConnAckReasonCode.BAD_AUTHENTICATION_METHOD, "no authentication method is supported"
            )
            return
        will = packet.will
        if will is not None and will.qos == mqtt5.QoS.EXACTLY_ONCE:
            self._turn_away(mqtt5.ConnAckReasonCode.QUALITY_NOT_SUPPORTED, "the will has QoS 2")
            return
        if will is not None and not valid_topic(will.topic):
            self._turn_away(mqtt5.ConnAckReasonCode.TOPIC_NAME_INVALID, "the will has an invalid topic")
            return
        self._welcome(packet)

    def _welcome(self, packet: mqtt5.ConnectPacket) -> None:
        assert self._timer is not None, "the handshake timer runs since connection_made"
        self._timer.cancel()
        self.will = packet.will
        self.receive_max = packet.receive_max
        self.max_packet_bytes = packet.max_packet_size or _NO_LIMIT
        self._keep_alive_s = packet.keep_alive
        if self._keep_alive_s:
            self._watch_keepalive()
        session, present, assigned = self._broker.admit(self, packet)
        self.session = session
        self.send(
            mqtt5.ConnAckPacket(
                session_present=present,
                assigned_client_id=assigned,
                max_qos=mqtt5.QoS.AT_LEAST_ONCE,
                max_packet_size=self._broker.max_packet_bytes,
                subscription_id_available=False,
                shared_subscription_available=False,
            ).write()
        )
        session.attach(self)
        session.pump()

    def _publish(self, session: Session, packet: mqtt5.PublishPacket) -> None:
        if packet.qos == mqtt5.QoS.EXACTLY_ONCE:
            raise ProtocolViolation(
                mqtt5.DisconnectReasonCode.QOS_NOT_SUPPORTED, "PUBLISH with QoS 2; 0 and 1 are supported"
            )
        if packet.topic_alias is not None:
            raise ProtocolViolation(
                mqtt5.DisconnectReasonCode.TOPIC_ALIAS_INVALID, "no topic alias is allowed"
            )
        if not valid_topic(packet.topic):
            raise ProtocolViolation(
                mqtt5.DisconnectReasonCode.TOPIC_NAME_INVALID,
                f"{packet.topic[:100]!r} is no topic to publish to",
            )
        if packet.packet_id == 0:
            raise _broken("PUBLISH with packet id 0")
        self._ahead += 1
        found = self._broker.publish(Message.of(packet), session)
        if packet.packet_id is not None:
            reason = (
                mqtt5.PubAckReasonCode.SUCCESS if found else mqtt5.PubAckReasonCode.NO_MATCHING_SUBSCRIBERS
            )
            self.send(mqtt5.PubAckPacket(packet.packet_id, reason_code=reason).write())

    def _goodbye(self, session: Session, packet: mqtt5.DisconnectPacket) -> None:
        if packet.session_expiry_interval is not None:
            if packet.session_expiry_interval and not session.expiry_s:
                raise _broken("DISCONNECT asks to keep a session that CONNECT did not ask to keep")
            session.expiry_s = packet.session_expiry_interval
        if packet.reason_code == mqtt5.DisconnectReasonCode.NORMAL_DISCONNECTION:
            self.will = None
        self.close(None)

    def _watch_keepalive(self) -> None:
        """Close the connection when nothing was heard for 1.5 times the keep-alive the client asked for."""
        left_s = self._last_heard + 1.5 * self._keep_alive_s - self._loop.time()
        if left_s <= 0:
            self.close(mqtt5.DisconnectReasonCode.KEEP_ALIVE_TIMEOUT)
        else:
            self._timer = self._loop.call_later(left_s, self._watch_keepalive)


def _broken(detail: str) -> ProtocolViolation:
    return ProtocolViolation(mqtt5.DisconnectReasonCode.PROTOCOL_ERROR, detail)
