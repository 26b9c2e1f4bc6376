"""Places on a network: a namespace each, joined to ours, or else loopback addresses of their own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOST_NETWORKS = 256
PORT = 1883


@dataclass(frozen=True)
class Place:
    """Somewhere a broker and those who speak with it live.

    `within` is the command that runs another one there. The broker listens at `port` of every address of the
    place: `inside` is the one that its neighbours use, `outside` the one that the test uses, who stands at
    `gateway` of the same wire.
    """

    name: str
    within: tuple[str, ...]
    inside: str
    outside: str
    gateway: str
    port: int


@contextlib.contextmanager
def network(*names: str) -> Iterator[dict[str, Place]]:
    """Make places with these names, each a network namespace where this machine allows it."""
    with _number() as number, contextlib.ExitStack() as stack:
        if _allows_namespaces():
            yield {name: stack.enter_context(_namespace(number, at, name)) for at, name in enumerate(names)}
        else:
            yield {name: _address(number, at, name) for at, name in enumerate(names)}


@contextlib.contextmanager
def _number() -> Iterator[int]:
    """Hold a number that no other network on this machine has."""
    for number in range(MOST_NETWORKS):
        path = Path(tempfile.gettempdir(), f"resonator-network-{os.getuid()}-{number}")
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield number
            return
    raise AssertionError(f"{MOST_NETWORKS} networks are in use on this machine")


def _allows_namespaces() -> bool:
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("nsenter")):
        return False
    probe = f"resonator-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode:
        return False
    _ip("netns", "delete", probe)
    return True


@contextlib.contextmanager
def _namespace(number: int, at: int, name: str) -> Iterator[Place]:
    space, ours, theirs = f"resonator-{number}-{at}", f"rsn{number}-{at}", f"rsn{number}-{at}p"
    outside, gateway = (f"198.18.{number}.{4 * at + host}" for host in (2, 1))  # RFC 2544: for tests
    for leftover in (("netns", "delete", space), ("link", "delete", ours)):  # of a test that was killed
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip(*leftover)
    _ip("netns", "add", space)
    try:
        _ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", space)
        _ip("address", "add", f"{gateway}/30", "dev", ours)
        _ip("link", "set", ours, "up")
        _ip("-netns", space, "address", "add", f"{outside}/30", "dev", theirs)
        _ip("-netns", space, "link", "set", theirs, "up")
        _ip("-netns", space, "link", "set", "lo", "up")
        within = ("nsenter", f"--net=/run/netns/{space}")
        yield Place(name, within, "127.0.0.1", outside, gateway, PORT)
    finally:
        _ip("netns", "delete", space)  # its end of the wire goes with it, and so does ours


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _address(number: int, at: int, name: str) -> Place:
    own = f"127.0.{number}.{at + 1}"
    with socket.socket() as probe:
        probe.bind((own, 0))
        return Place(name, (), own, own, f"127.1.{number}.{at + 1}", int(probe.getsockname()[1]))
