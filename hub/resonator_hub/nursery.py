"""A process that has TVM loaded and forks workers from itself, each at no cost.

Started by `pool.WarmPool` as `python -m resonator_hub.nursery FD`. Over the socket FD comes one byte for
each worker wanted, with that worker's own socket attached. The nursery never runs a stage itself.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from resonator_hub import warm

READY = b"r"
FORK = b"f"
LENGTH = struct.Struct("!Q")
COST = struct.Struct("!d")
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Load everything, say so, then fork a worker for each request until the hub is gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    limits = json.loads(sys.argv[2])
    sys.path[:] = limits["path"]  # a stage is found here wherever the hub found it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the hub's to handle
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that the kernel reaps the workers
    if limits["cores"]:
        os.sched_setaffinity(0, limits["cores"])
    warm.load()
    control.sendall(READY)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:  # the hub is gone; the workers go with this process
            return
        if os.fork() == 0:
            control.close()
            _work(socket.socket(fileno=descriptors[0]), limits["memory_bytes"])
        os.close(descriptors[0])


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends, however that happens."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def send(channel: socket.socket, data: bytes) -> None:
    """Send one message."""
    channel.sendall(LENGTH.pack(len(data)) + data)


def receive(channel: socket.socket) -> bytes | None:
    """Return the next message, or None when the other side is gone."""
    header = _receive_exactly(channel, LENGTH.size)
    return None if header is None else _receive_exactly(channel, LENGTH.unpack(header)[0])


def _receive_exactly(channel: socket.socket, size: int) -> bytes | None:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = channel.recv_into(view)
        if not count:
            return None
        view = view[count:]
    return bytes(data)


def _work(channel: socket.socket, memory_bytes: int) -> None:
    """Be a worker: run one call after the other until the hub hangs up. Never returns."""
    try:
        die_with_parent()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # the stages wait for their linker
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        send(channel, str(os.getpid()).encode())
        while (call := receive(channel)) is not None:
            before = _processor_s()
            outcome = _outcome(*pickle.loads(call))
            send(channel, COST.pack(_processor_s() - before) + outcome)
    finally:
        os._exit(0)


def _processor_s() -> float:
    """Return what this process and those it waited for, such as linkers, have taken so far."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    """Return the pickled (result, None), or (None, exception)."""
    try:
        return pickle.dumps((function(*arguments), None))
    except MemoryError:
        return pickle.dumps((None, MemoryError("out of memory")))
    except Exception as error:
        return pickle.dumps((None, _portable(error)))


def _portable(error: Exception) -> Exception:
    """Return an error that the hub can unpickle without loading TVM: our own and Python's, else its text."""
    if type(error).__module__.partition(".")[0] in ("builtins", "resonator", "resonator_hub"):
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an error whose constructor takes other arguments than it keeps
            return RuntimeError(f"{type(error).__name__}: {error}")
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
