"""The way to the broker, step by step, what hubs say there, and what that tells of this machine's clock."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import statistics
import time
from importlib.metadata import version
from pathlib import Path

from resonator.bus.connection import ConnectionLost
from resonator.bus.url import BrokerAddress, parse_broker_url
from resonator.doctor import clock
from resonator.doctor.finding import Finding, failed, ok, warning
from resonator.doctor.talk import Heard, RefusedTopics, talk
from resonator.errors import InputInvalid
from resonator.messages import HubState
from resonator.trust import Credentials, credentials_for

SLOW_S = 0.5
_ACCESS = (
    "have the broker read its configuration again, as `resonator broker config` or `site config` wrote it"
)


def look_at_broker(
    url: str, identity: Path | None, site: str, *, insecure: bool, timeout: float
) -> list[Finding]:
    """Connect as whoever `identity` is, ask a hub something, and say how that went; so of the clock."""
    watch = clock.Stopwatch()
    heard: Heard | None = None
    try:
        address = parse_broker_url(url)
        credentials = credentials_for(url, identity, insecure=insecure)
        connected_s = _reach(address, credentials, timeout)
        heard = asyncio.run(asyncio.wait_for(talk(address, credentials, site, timeout), timeout))
        findings = [_conversation(address, connected_s, heard), *_hubs(heard)]
    except InputInvalid as error:
        findings = [failed("broker", str(error), "name broker and identity by --broker and --identity")]
    except _NoWay as error:
        findings = [error.finding]
    except ConnectionLost as error:
        says = f"{url} is there, but lets nobody in: {error}"
        findings = [
            failed("broker", says, "is the certificate revoked, or of another fleet? See the broker's log")
        ]
    except RefusedTopics as error:
        findings = [failed("broker", f"{url} forbids to listen to {error}", _ACCESS)]
    except asyncio.TimeoutError:
        findings = [
            failed("broker", f"{url} took the connection and did not answer", "is that an MQTT broker?")
        ]
    ahead_s = None if heard is None else heard.ahead_s
    synchronised = clock.kernel_synchronised()
    found = clock.look_at_clock(time.time(), watch.jumped_s(), ahead_s, synchronised=synchronised)
    return [*findings, found]


class _NoWay(Exception):
    """The broker cannot even be reached."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.says)
        self.finding = finding


def _reach(address: BrokerAddress, credentials: Credentials | None, timeout: float) -> float:
    """Look up, connect and shake hands; return how long connecting took, in seconds."""
    try:
        socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        says = f"{address.host} is not known here: {error.strerror}"
        raise _NoWay(
            failed("broker", says, "correct --broker, or the name server in /etc/resolv.conf")
        ) from None
    began = time.perf_counter()
    try:
        sock = socket.create_connection((address.host, address.port), timeout)
    except OSError as error:
        says = f"nobody answers at {address}: {error.strerror or 'no answer in time'}"
        raise _NoWay(
            failed("broker", says, "start the broker there, or open the firewall for its port")
        ) from None
    connected_s = time.perf_counter() - began
    with contextlib.closing(sock):
        if credentials is not None:
            _shake_hands(address, credentials, sock)
    return connected_s


def _shake_hands(address: BrokerAddress, credentials: Credentials, sock: socket.socket) -> None:
    try:
        credentials.context().wrap_socket(sock, server_hostname=address.host).close()
    except ssl.SSLCertVerificationError as error:
        says = f"the certificate of {address} is not to be trusted: {error.verify_message}"
        advice = "is it of this fleet (ca.crt), for this name, and valid? `resonator broker config` makes one"
        raise _NoWay(failed("broker", says, advice)) from None
    except OSError as error:
        said = getattr(error, "reason", None) or error.strerror or str(error) or "it hung up"
        says = f"{address} does not speak TLS as it should: {said}"
        raise _NoWay(
            failed("broker", says, "is that the port of TLS, and is this identity of its fleet?")
        ) from None


def _conversation(address: BrokerAddress, connected_s: float, heard: Heard) -> Finding:
    answer_s = statistics.median(heard.answers_s)
    says = f"{address} connects in {connected_s * 1e3:.1f} ms and answers in {answer_s * 1e3:.1f} ms"
    if heard.tls:
        says += f", {heard.tls}"
    if answer_s > SLOW_S:
        return warning(
            "broker", says, "the link is slow: put a broker at this site (`resonator site config`)"
        )
    return ok("broker", says)


def _hubs(heard: Heard) -> list[Finding]:
    online = {name: state for name, state in heard.hubs.items() if state.status == "online"}
    if not online:
        gone = ", ".join(f"{name} has gone offline" for name in sorted(heard.hubs)) or "none was ever here"
        return [
            failed(
                "hub",
                f"no hub is online: {gone}",
                "start one, or see to the link between its broker and this one",
            )
        ]
    if len(online) > 1:
        says = f"{len(online)} hubs are online: {', '.join(sorted(online))}"
        return [warning("hub", says, "stop all but one, unless they serve different fleets")]
    ((name, state),) = online.items()
    return [_answer(name, state, heard)]


def _answer(name: str, state: HubState, heard: Heard) -> Finding:
    ours, theirs = version("resonator"), state.version
    said = f"{name} (version {theirs}) is online"
    if heard.refusal:
        return failed("hub", f"{said}, but says no: {heard.refusal}", "do as it says, or ask an operator")
    if heard.asked and heard.hub_s is None:
        says = f"{said}, but did not answer a question"
        return failed("hub", says, "look at its log, /readyz and `resonator doctor` where it runs")
    if theirs != ours:
        return warning("hub", f"{said}, and this is version {ours}", "bring both to the same version")
    answered = "" if heard.hub_s is None else f" and answers in {heard.hub_s * 1e3:.1f} ms"
    return ok("hub", f"{said}{answered}")
