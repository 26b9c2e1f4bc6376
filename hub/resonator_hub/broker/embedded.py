"""The embedded broker: who is connected, which sessions exist, what is retained, and where messages go."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets

import mqtt5
import structlog

from resonator.bus.port import MAX_PACKET_BYTES
from resonator.errors import InputInvalid
from resonator_hub.broker.connection import LINGER_S, Connection
from resonator_hub.broker.faults import FaultInjector, Faults
from resonator_hub.broker.filters import SubscriptionTree, matches, valid_filter
from resonator_hub.broker.framing import ProtocolViolation
from resonator_hub.broker.session import NEVER_EXPIRES, Message, Session, granted

_log = structlog.get_logger(__name__)

_REFUSED = 0x80


class EmbeddedBroker:
    """An MQTT 5 broker inside this process, on loopback; `port` 0 takes a free one.

    Raises InputInvalid for an address that others could reach: that is Mosquitto's work.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, *, max_packet_bytes: int = MAX_PACKET_BYTES
    ) -> None:
        self.host = _loopback(host)
        self.port = port
        self.max_packet_bytes = max_packet_bytes
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._all_gone = asyncio.Event()
        self._sessions: dict[str, Session] = {}
        self._expiries: dict[str, asyncio.TimerHandle] = {}
        self._wills: dict[str, tuple[asyncio.TimerHandle, Message]] = {}
        self._subscriptions: SubscriptionTree[mqtt5.TopicFilter] = SubscriptionTree()
        self._retained: dict[str, Message] = {}
        self._injector: FaultInjector | None = None

    # --- for whoever runs it --------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where clients connect; known once started."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt://{host}:{self.port}"

    async def start(self) -> None:
        """Listen; raises InputInvalid when the port is taken."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: Connection(self), self.host, self.port)
        except OSError as error:
            raise InputInvalid(f"the embedded broker cannot listen on {self.url}: {error.strerror}") from None
        self.port = self._server.sockets[0].getsockname()[1]
        _log.info(f"embedded broker at {self.url}")

    async def stop(self) -> None:
        """Tell every client, close, and forget sessions and retained messages; no will is published."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._connections):
            connection.will = None
            introduced = connection.session is not None
            connection.close(mqtt5.DisconnectReasonCode.SERVER_SHUTTING_DOWN if introduced else None)
        if self._connections:
            self._all_gone.clear()
            await asyncio.wait_for(self._all_gone.wait(), 2 * LINGER_S)
        for timer in (*self._expiries.values(), *(timer for timer, _ in self._wills.values())):
            timer.cancel()
        for forgotten in (self._expiries, self._wills, self._sessions, self._retained):
            forgotten.clear()
        self._subscriptions = SubscriptionTree()
        await self._server.wait_closed()
        self._server = None

    @property
    def faults(self) -> Faults | None:
        """What is done to forwarded messages; set None to deliver all that waits and be reliable again."""
        return self._injector.faults if self._injector is not None else None

    @faults.setter
    def faults(self, faults: Faults | None) -> None:
        if self._injector is not None:
            self._injector.flush()
        self._injector = FaultInjector(faults) if faults is not None else None

    def cut(self, client_id: str | None = None) -> int:
        """Cut the connection of `client_id`, or all, as a network would; returns how many. Wills fire."""
        victims = [
            connection
            for connection in self._connections
            if connection.session is not None and client_id in (None, connection.session.client_id)
        ]
        for connection in victims:
            connection.abort()
        return len(victims)

    @property
    def dropped(self) -> int:
        """How many messages the sessions that exist now have lost to full queues and size limits."""
        return sum(session.dropped for session in self._sessions.values())

    # --- for connections ------------------------------------------------------------------------------

    def arrived(self, connection: Connection) -> None:
        """A socket was accepted."""
        self._connections.add(connection)

    def gone(self, connection: Connection) -> None:
        """Its socket is closed."""
        self._connections.discard(connection)
        if not self._connections:
            self._all_gone.set()

    def admit(self, connection: Connection, packet: mqtt5.ConnectPacket) -> tuple[Session, bool, str | None]:
        """Find or make the client's session: (session, whether it was there, the id given if it had none)."""
        assigned = None if packet.client_id else f"anonymous-{secrets.token_hex(8)}"
        client_id = packet.client_id or assigned or ""
        self._take_over(client_id)
        if timer := self._expiries.pop(client_id, None):
            timer.cancel()
        if pending := self._wills.pop(client_id, None):
            pending[0].cancel()  # the client is back in time
        if packet.clean_start:
            self._end_session(client_id)
        present = client_id in self._sessions
        session = self._sessions.setdefault(client_id, Session(client_id))
        session.expiry_s = packet.session_expiry_interval
        return session, present, assigned

    def _take_over(self, client_id: str) -> None:
        """Close the client's older connection, if any."""
        session = self._sessions.get(client_id)
        if session is not None and session.wire is not None:
            session.wire.close(mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER)

    def departed(self, connection: Connection) -> None:
        """The client is not there any more: publish its will when due, keep its session while it may."""
        session = connection.session
        if session is None:
            return
        session.detach()
        if connection.will is not None:
            self._schedule_will(session, connection.will)
        if session.expiry_s == 0:
            self._end_session(session.client_id)
        elif session.expiry_s != NEVER_EXPIRES:
            self._expiries[session.client_id] = asyncio.get_running_loop().call_later(
                session.expiry_s, self._end_session, session.client_id
            )

    def _end_session(self, client_id: str) -> None:
        self._expiries.pop(client_id, None)
        session = self._sessions.pop(client_id, None)
        if session is not None:
            for pattern in list(session.subscriptions):
                session.unsubscribe(pattern, self._subscriptions)

    def _schedule_will(self, session: Session, will: mqtt5.Will) -> None:
        message = Message.of(will)
        delay_s = min(will.will_delay_interval, session.expiry_s)
        if delay_s == 0:
            self.publish(message, session)
            return
        timer = asyncio.get_running_loop().call_later(delay_s, self._publish_will, session.client_id)
        self._wills[session.client_id] = (timer, message)

    def _publish_will(self, client_id: str) -> None:
        _, message = self._wills.pop(client_id)
        self.publish(message, None)

    def publish(self, message: Message, origin: Session | None) -> bool:
        """Keep `message` if it is to be retained, and forward it; returns whether anyone subscribes."""
        if message.retain and message.payload:
            self._retained[message.topic] = message
        elif message.retain:
            self._retained.pop(message.topic, None)
        receivers: dict[str, Message] = {}
        for client_id, grant in self._subscriptions.match(message.topic):
            if grant.no_local and origin is not None and client_id == origin.client_id:
                continue
            copy, best = granted(message, grant), receivers.get(client_id)
            if best is None or copy.qos > best.qos:
                receivers[client_id] = copy
        for client_id, copy in receivers.items():
            # A receiver that is cut off for not reading takes its session with it, here in mid-delivery.
            if session := self._sessions.get(client_id):
                self._forward(session, copy)
        return bool(receivers)

    def _forward(self, session: Session, message: Message, *, retained: bool = False) -> None:
        if self._injector is None:
            session.offer(message)
        else:
            self._injector.forward(
                session.client_id, message.topic, lambda: session.offer(message), retained=retained
            )

    def subscribe(self, connection: Connection, session: Session, packet: mqtt5.SubscribePacket) -> None:
        """Take the subscriptions, answer for each, then send what is retained for them."""
        _check_request(packet.packet_id, packet.topic_filters)
        if packet.subscription_id is not None:
            raise ProtocolViolation(
                mqtt5.DisconnectReasonCode.SUBSCRIPTION_IDS_NOT_SUPPORTED, "no subscription ids are supported"
            )
        codes, due = [], []
        for grant in packet.topic_filters:
            code = _suback_code(grant)
            codes.append(code)
            if int(code) >= _REFUSED:
                continue
            new = session.subscribe(grant, self._subscriptions)
            handling = grant.retain_handling
            if handling == mqtt5.RetainHandling.SEND_ALWAYS or (
                new and handling == mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS
            ):
                due.append(grant)
        connection.send(mqtt5.SubAckPacket(packet.packet_id, codes).write())
        for grant in due:
            self._send_retained(session, grant)

    def _send_retained(self, session: Session, grant: mqtt5.TopicFilter) -> None:
        for topic, message in list(self._retained.items()):
            if matches(grant.pattern, topic):
                qos = min(message.qos, int(grant.max_qos))
                copy = Message(topic, message.payload, qos, True, message.properties)
                self._forward(session, copy, retained=True)

    def unsubscribe(self, connection: Connection, session: Session, packet: mqtt5.UnsubscribePacket) -> None:
        """Drop the subscriptions and answer for each."""
        _check_request(packet.packet_id, packet.patterns)
        codes = [
            mqtt5.UnsubAckReasonCode.SUCCESS
            if session.unsubscribe(pattern, self._subscriptions)
            else mqtt5.UnsubAckReasonCode.NO_SUBSCRIPTION_EXISTED
            for pattern in packet.patterns
        ]
        connection.send(mqtt5.UnsubAckPacket(packet.packet_id, codes).write())


def _check_request(packet_id: int, filters: list[mqtt5.TopicFilter] | list[str]) -> None:
    if packet_id == 0 or not filters:
        raise ProtocolViolation(
            mqtt5.DisconnectReasonCode.PROTOCOL_ERROR, "a request with packet id 0 or without a topic filter"
        )


def _suback_code(grant: mqtt5.TopicFilter) -> mqtt5.SubAckReasonCode:
    if not valid_filter(grant.pattern):
        return mqtt5.SubAckReasonCode.TOPIC_FILTER_INVALID
    if grant.pattern.startswith("$share/"):
        return mqtt5.SubAckReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
    return mqtt5.SubAckReasonCode(min(int(grant.max_qos), 1))


def _loopback(host: str) -> str:
    """Return the loopback address that `host` means; raises InputInvalid."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise InputInvalid(
            f"the embedded broker listens on loopback only, not on {host!r}: use 127.0.0.1, ::1 or "
            "localhost, and Mosquitto (or any MQTT 5 broker) for other machines"
        )
    return host
