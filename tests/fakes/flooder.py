"""Somebody who says too much: a program that publishes bad messages as fast as it is told to.

`python flooder.py BROKER IDENTITY KIND QOS SIZE RATE COUNT`: COUNT messages (0: until SIGTERM) at RATE
a second. It says `flooding` when it begins; at its end, as a JSON list, how many it sent in how many seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path

import mqtt5

from resonator.bus import codec, topics
from resonator.bus.peer import new_id
from resonator.bus.url import parse_broker_url
from resonator.messages import DeviceState, JobQuery, KernelResult, Message, Telemetry
from resonator.trust import Credentials, Party
from resonator.trust.seal import Seal

DIFFERENT = 2000
"""How many different messages there are; they come again in turns."""
STEP_S = 0.02
GOODBYE_S = 30.0


class Source:
    """What a party floods with, by the kind of its messages."""

    def __init__(self, party: Party, seal: Seal | None, size: int) -> None:
        self._party = party
        self._seal = seal
        self._size = size

    def packets(self, kind: str, qos: int) -> list[bytes]:
        """Return MQTT packets that are sent over and over."""
        made: Callable[[int], tuple[str, bytes]] = getattr(self, f"_{kind}")
        return [_packet(*made(number), qos, number + 1) for number in range(DIFFERENT)]

    def _garbage(self, _number: int) -> tuple[str, bytes]:
        return self._topic("result", "request"), os.urandom(self._size)

    def _stray(self, number: int) -> tuple[str, bytes]:
        """Speak below its own `up`, where nothing is spoken."""
        return f"{self._topic('result', 'request')}/{number}", os.urandom(self._size)

    def _unsigned(self, number: int) -> tuple[str, bytes]:
        return self._said("result", self._result(number), None)

    def _forged(self, number: int) -> tuple[str, bytes]:
        """Sign, and change a bit of what is said afterwards."""
        topic, data = self._meaningless(number)
        place = data.index(b"lie")
        return topic, data[:place] + b"lid" + data[place + 3 :]

    def _meaningless(self, number: int) -> tuple[str, bytes]:
        return self._said("result", self._result(number), self._seal)

    def _telemetry(self, number: int) -> tuple[str, bytes]:
        return self._said("telemetry", Telemetry(epoch=number), self._seal)

    def _states(self, number: int) -> tuple[str, bytes]:
        state = DeviceState(status="offline", session=number, instance="flood")
        return self._said("state", state, self._seal)

    def _requests(self, _number: int) -> tuple[str, bytes]:
        return self._said("request", JobQuery(), self._seal)

    def _result(self, number: int) -> KernelResult:
        return KernelResult(job="lies", candidate=f"lie{number:06}" + "x" * 60, epoch=1, latencies=(1e-9,))

    def _topic(self, channel: str, else_: str) -> str:
        party = self._party
        if party.role == "device":
            return topics.device_up(party.site, party.name, channel)
        return topics.client_up(party.site, party.name, else_)

    def _said(self, channel: str, message: Message, seal: Seal | None) -> tuple[str, bytes]:
        topic = self._topic(channel, "request")
        name, now = self._party.name, time.time()
        return topic, codec.encode(message, id=new_id(), source=name, at=now, topic=topic, seal=seal)


def _packet(topic: str, payload: bytes, qos: int, packet_id: int) -> bytes:
    packet = mqtt5.PublishPacket(topic, payload, qos=mqtt5.QoS(qos), packet_id=packet_id if qos else None)
    data: bytes = packet.write()
    return data


def connect(url: str, credentials: Credentials | None) -> socket.socket:
    """Introduce oneself to a broker."""
    address = parse_broker_url(url)
    sock = socket.create_connection((address.host, address.port), 10)
    if credentials is not None:
        sock = credentials.context().wrap_socket(sock, server_hostname=address.host)
    sock.sendall(mqtt5.ConnectPacket(f"flood-{os.getpid()}").write())
    assert sock.recv(1 << 12)[0] >> 4 == 2, "the broker does not let the flooder in"
    sock.settimeout(None)
    return sock


def batches(packets: list[bytes], rate: int, count: int) -> Iterator[tuple[int, bytes]]:
    """Yield what is sent every STEP_S seconds: how many messages, and their bytes."""
    supply, most = cycle(packets), max(1, int(rate * STEP_S))
    while count != 0:
        now = most if count < 0 else min(most, count)
        yield now, b"".join(islice(supply, now))
        count -= min(now, count) if count > 0 else 0


def flood(sock: socket.socket, packets: list[bytes], rate: int, count: int) -> tuple[int, float]:
    """Send until `count` or SIGTERM; return how many were sent in how many seconds."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    drain = threading.Thread(target=_drain, args=(sock,), daemon=True)
    drain.start()
    print("flooding", flush=True)
    sent, began = 0, time.monotonic()
    for number, data in batches(packets, rate, count or -1):
        if stop.is_set():
            break
        sock.sendall(data)
        sent += number
        stop.wait(max(0.0, began + sent / rate - time.monotonic()))
    took_s = time.monotonic() - began
    # A broker answers a goodbye by hanging up: by then it has taken all that was sent.
    sock.sendall(mqtt5.DisconnectPacket().write())
    drain.join(GOODBYE_S)
    return sent, took_s


def knock(url: str, rate: int, count: int) -> tuple[int, float]:
    """Begin one connection after the other without a certificate; return as `flood` does."""
    address = parse_broker_url(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print("flooding", flush=True)
    made, began = 0, time.monotonic()
    while not stop.is_set() and (count == 0 or made < count):
        with contextlib.suppress(OSError), socket.create_connection((address.host, address.port), 10) as sock:
            context.wrap_socket(sock).close()
        made += 1
        stop.wait(max(0.0, began + made / rate - time.monotonic()))
    return made, time.monotonic() - began


def _drain(sock: socket.socket) -> None:
    """Read acknowledgements, so that the broker goes on reading."""
    try:
        while sock.recv(1 << 16):
            pass
    except OSError:
        pass


def main(url: str, folder: str, kind: str, qos: str, size: str, rate: str, count: str) -> None:
    if kind == "knocks":
        print(json.dumps(knock(url, int(rate), int(count))), flush=True)
        return
    credentials = Credentials.load(Path(folder)) if folder else None
    party = credentials.party if credentials else Party("device", "local", "flooder")
    source = Source(party, Seal(credentials) if credentials else None, int(size))
    packets = source.packets(kind, int(qos))
    sock = connect(url, credentials)
    try:
        sent = flood(sock, packets, int(rate), int(count))
    except (ConnectionError, ssl.SSLError) as error:
        sys.exit(f"the broker threw the flooder out: {error}")
    print(json.dumps(sent), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
