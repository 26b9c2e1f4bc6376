"""A process that has loaded what stages need and forks workers from itself, each in milliseconds.

Started by `pool.WarmPool` as `python -m resonator_hub.nursery FD`. Over the socket FD comes the number of
each worker wanted, with that worker's own socket attached. The nursery never runs a stage itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import shutil
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from resonator_hub import calls, channel, confinement

READY = b"r"
FORK = struct.Struct("!Q")
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Terms:
    """On what terms workers work.

    `load` is the function that loads what stages need, `packages` have the stages, `programs` is what these
    may start, `folder` is where each worker has a folder of its own. `cpu_s` is the processor time of a call.
    """

    folder: str
    load: str
    packages: Sequence[str]
    programs: Sequence[str]
    path: Sequence[str]
    cores: Sequence[int]
    memory_bytes: int
    cpu_s: float


def main() -> None:
    """Load everything, say so, then fork a worker for each request until the hub is gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    terms = Terms(**json.loads(sys.argv[2]))
    sys.path[:] = terms.path  # a stage is found here wherever the hub found it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the hub's to handle
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that the kernel reaps the workers
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)  # and what they leave behind
    if terms.cores:
        os.sched_setaffinity(0, terms.cores)
    calls.find(terms.load, calls.OURS)()
    readable = _sources(terms.packages)
    control.sendall(READY)
    try:
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, FORK.size, 1)
            if not message:
                return
            (number,) = FORK.unpack(message)
            if os.fork() == 0:
                control.close()
                _work(socket.socket(fileno=descriptors[0]), Path(terms.folder, str(number)), readable, terms)
            os.close(descriptors[0])
    finally:
        _end_all()
        shutil.rmtree(terms.folder, ignore_errors=True)


def _sources(packages: Sequence[str]) -> list[Path]:
    """Return where the modules of `packages`, and of those that they stand on, are read from."""
    files = (import_module(package).__file__ for package in ("resonator", *calls.OURS, *packages))
    found = [Path(file) for file in files if file is not None]
    return [path.parent if path.name == "__init__.py" else path for path in found]


def _work(hub: socket.socket, folder: Path, readable: Sequence[Path], terms: Terms) -> None:
    """Be a worker: run one call after the other until the hub hangs up. Never returns."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # the stages wait for their linker
        layers = confinement.confine(folder, readable, list(map(Path, terms.programs)), terms.memory_bytes)
        channel.send(hub, [os.getpid(), layers])
        with contextlib.suppress(EOFError):
            while True:
                message = channel.receive(hub)
                confinement.allow_processor_time(terms.cpu_s)
                channel.send(hub, calls.perform(message, terms.packages, _processor_s))
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(0)


def _processor_s() -> float:
    """Return what this process and those it waited for, such as linkers, have taken so far."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def _end_all() -> None:
    """End the workers and whatever they have started."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    with contextlib.suppress(FileNotFoundError):  # on a Linux that does not tell: workers end by themselves
        while pids := children.read_text().split():
            for pid in map(int, pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
