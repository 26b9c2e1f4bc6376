"""The hub's end of the nursery: it has it fork workers, and starts another one when it dies."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict

import structlog

from resonator_hub import nursery
from resonator_hub.calls import ComputeFailed

log = structlog.get_logger(__name__)
START_TIMEOUT_S = 120.0
END_TIMEOUT_S = 5.0
_VARIABLES = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH")
_FAMILIES = ("LC_", "PYTHON", "TVM_", "OMP_", "OPENBLAS_")


def environment() -> Mapping[str, str]:
    """Return what workers are told of the hub's environment, in which a database's password may be."""
    return {
        name: value for name, value in os.environ.items() if name in _VARIABLES or name.startswith(_FAMILIES)
    }


class Matron:
    """One nursery after the other: whatever kills one, such as a lack of memory, costs its workers alone.

    Started at once; it takes no orders before `wait_until_warm` has returned.
    """

    def __init__(self, terms: nursery.Terms) -> None:
        self._terms = terms
        self._ordering = threading.Lock()
        self._ended = False
        self._begin()

    def _begin(self) -> None:
        self._control, theirs = socket.socketpair()
        order = [sys.executable, "-m", "resonator_hub.nursery", str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                [*order, json.dumps(asdict(self._terms))],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment(),
                start_new_session=True,  # a worker has no terminal that it could type on
            )

    def wait_until_warm(self) -> None:
        """Block until it has loaded what it is to load, about 4 s for TVM. Raises `ComputeFailed`."""
        self._control.settimeout(START_TIMEOUT_S)
        try:
            ready = self._control.recv(1)
        except TimeoutError:
            raise ComputeFailed(f"TVM was not loaded within {START_TIMEOUT_S:.0f} s.") from None
        if ready != nursery.READY:
            raise ComputeFailed("The compute pool did not start: loading TVM failed.")
        self._control.settimeout(None)

    def fork(self, number: int, theirs: socket.socket) -> None:
        """Have a worker forked that speaks through `theirs`. Raises ComputeFailed and OSError."""
        with self._ordering:
            if self._process.poll() is not None and not self._ended:
                log.warning("the process that workers are forked from has died: another one is started")
                self._control.close()
                self._begin()
                self.wait_until_warm()
            socket.send_fds(self._control, [nursery.FORK.pack(number)], [theirs.fileno()])

    def end(self, *, patience: bool) -> None:
        """Have the nursery end what workers there are; one that is still loading is killed."""
        self._ended = True
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)  # not closed: somebody may wait here for it to get warm
        if patience:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_TIMEOUT_S)
        self._process.kill()
        self._process.wait()
        self._control.close()
