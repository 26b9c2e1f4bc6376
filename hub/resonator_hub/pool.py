"""An executor of warm worker processes, in which a bad call costs itself and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from resonator.errors import ResonatorError
from resonator_hub import nursery

T = TypeVar("T")

START_TIMEOUT_S = 120.0
MEMORY_BYTES = 4 * 2**30


class ComputeFailed(ResonatorError):
    """A call did not come to a result for reasons of its own process; the sentence says which."""


class _Call(Future[Any]):
    """A call in a worker; unlike other futures it can be cancelled while it runs: its worker is killed.

    `cpu_s` is the processor time it took, None until its worker has told.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.name = getattr(function, "__name__", str(function))
        self.message = pickle.dumps((function, arguments))
        self.unwanted = False
        self.cpu_s: float | None = None
        self._worker: _Worker | None = None
        self._changing = threading.Lock()

    def cancel(self) -> bool:
        if super().cancel():
            return True
        with self._changing:
            self.unwanted = True
            if self._worker is not None:
                self._worker.kill()
        return False

    def run_on(self, worker: _Worker) -> tuple[Any, Exception | None] | None:
        """Return the outcome of the call on `worker`, or None when the worker died or was killed."""
        with self._changing:
            if self.unwanted:
                worker.kill()
            self._worker = worker
        answer = worker.run(self.message)
        with self._changing:  # from here on a cancellation comes too late to hit the worker's next call
            self._worker = None
        if self.unwanted or answer is None:
            return None
        self.cpu_s, outcome = answer
        return outcome


class _Worker:
    """One process forked from the nursery, and the socket to it."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        pid = nursery.receive(channel)
        if pid is None:
            raise ComputeFailed("A worker process could not be started.")
        self.pid = int(pid)

    def run(self, message: bytes) -> tuple[float, tuple[Any, Exception | None]] | None:
        """Return a call's processor seconds and outcome, or None when the worker died of it."""
        try:
            nursery.send(self._channel, message)
            answer = nursery.receive(self._channel)
        except OSError:
            return None
        if answer is None:
            return None
        (cpu_s,) = nursery.COST.unpack_from(answer)
        return cpu_s, pickle.loads(memoryview(answer)[nursery.COST.size :])

    def kill(self) -> None:
        """End the process, and with it the call that waits for it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let the process go; an idle one ends by itself."""
        self._channel.close()


class WarmPool(Executor):
    """`slots` processes with TVM loaded, forked from one that loaded it; workers die with this process.

    `cores` are the CPU cores that all of them may use, None for any. A worker that holds more than
    `memory_bytes` of private memory gets no more, which ends its call.
    """

    def __init__(
        self, slots: int, *, cores: Sequence[int] | None = None, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self.slots = slots
        self._control, theirs = socket.socketpair()
        self._forking = threading.Lock()
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._running: set[_Call] = set()
        self._closed = False
        limits = json.dumps(
            {"cores": sorted(cores) if cores else [], "memory_bytes": memory_bytes, "path": sys.path}
        )
        with theirs:
            self._nursery = subprocess.Popen(
                [sys.executable, "-m", "resonator_hub.nursery", str(theirs.fileno()), limits],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._threads = [
            threading.Thread(target=self._serve, name=f"compute-{slot}", daemon=True) for slot in range(slots)
        ]

    def wait_until_warm(self) -> None:
        """Block until TVM is loaded, about 4 s. Raises `ComputeFailed` if that fails."""
        self._control.settimeout(START_TIMEOUT_S)
        try:
            ready = self._control.recv(1)
        except TimeoutError:
            raise ComputeFailed(f"TVM was not loaded within {START_TIMEOUT_S:.0f} s.") from None
        if ready != nursery.READY:
            raise ComputeFailed("The compute pool did not start: loading TVM failed.")
        self._control.settimeout(None)
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run `fn(*args)` in the next free worker; both must pickle. Keyword arguments are not taken."""
        if kwargs:
            raise TypeError("a compute pool takes positional arguments only")
        if self._closed:
            raise RuntimeError("the compute pool is closed")
        call = _Call(fn, args)
        self._calls.put(call)
        return call

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers. With `cancel_futures` running and waiting calls are given up."""
        if self._closed:
            return
        self._closed = True
        if cancel_futures:
            self._give_up()
        for _ in self._threads:
            self._calls.put(None)
        if wait:
            for thread in self._threads:
                if thread.ident is not None:
                    thread.join()
        self._nursery.kill()  # before the socket goes, on which somebody may wait for it to get warm
        self._nursery.wait()
        self._control.close()

    def _give_up(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                waiting = self._calls.get_nowait()
                if waiting is not None:
                    waiting.cancel()
        for call in tuple(self._running):
            call.cancel()

    def _serve(self) -> None:
        """Be a slot: take one call after the other, with one worker for as long as it lives."""
        worker: _Worker | None = None
        while (call := self._calls.get()) is not None:
            if not call.set_running_or_notify_cancel():
                continue
            try:
                worker = worker or self._fork()
            except (ComputeFailed, OSError) as error:
                call.set_exception(ComputeFailed(f"{call.name} did not run: {error}"))
                continue
            self._running.add(call)
            outcome = call.run_on(worker)
            self._running.discard(call)
            if not _settle(call, outcome):
                worker.close()
                worker = None
        if worker is not None:
            worker.kill()
            worker.close()

    def _fork(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs, self._forking:
            socket.send_fds(self._control, [nursery.FORK], [theirs.fileno()])
        return _Worker(ours)


def _settle(call: _Call, outcome: tuple[Any, Exception | None] | None) -> bool:
    """Give the call its result; return whether its worker is still good."""
    if outcome is None:
        call.set_exception(
            ComputeFailed(
                f"{call.name} did not finish: its process was killed, crashed or ran out of memory."
            )
        )
        return False
    result, error = outcome
    if isinstance(error, MemoryError):
        call.set_exception(ComputeFailed(f"{call.name} did not finish: it ran out of memory."))
        return False
    if error is not None:
        call.set_exception(error)
        return True
    call.set_result(result)
    return True
