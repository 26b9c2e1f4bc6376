"""An executor of warm worker processes, in which a bad call costs itself and nothing else."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import structlog

from resonator import sandbox
from resonator_hub import calls, channel, nursery
from resonator_hub.build import link
from resonator_hub.calls import ComputeFailed
from resonator_hub.matron import Matron

T = TypeVar("T")

log = structlog.get_logger(__name__)
MEMORY_BYTES = 4 * 2**30
CPU_S = 7200.0
"""The processor time after which the kernel ends a call, should the hub not get round to it before."""
LOAD = "resonator_hub.warm:load"
ATTEMPTS = 2
"""How many workers may die over a call: the first death may be the doing of somebody else."""


class _Call(Future[Any]):
    """A call in a worker; unlike other futures it can be cancelled while it runs: its worker is killed.

    `cpu_s` is the processor time it took, None until its worker has told.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.name = getattr(function, "__name__", str(function))
        self.message = calls.call(function, arguments)
        self.signature = calls.signature(function)
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

    def run_on(self, worker: _Worker) -> calls.Outcome | None:
        """Return the outcome of the call on `worker`, or None when the worker died or was killed."""
        with self._changing:
            if self.unwanted:
                worker.kill()
            self._worker = worker
        outcome = worker.run(self.message, self.signature)
        with self._changing:  # from here on a cancellation comes too late to hit the worker's next call
            self._worker = None
        if self.unwanted or outcome is None:
            return None
        self.cpu_s = outcome.cpu_s
        return outcome


class _Worker:
    """One process forked from the nursery, the socket to it, and the folder that it writes to."""

    def __init__(self, hub: socket.socket, folder: Path, most_bytes: int) -> None:
        self._channel, self._folder, self._most_bytes = hub, folder, most_bytes
        try:
            pid, layers = channel.receive(hub, most_bytes)
        except EOFError:
            self._remove()
            raise ComputeFailed("a worker process could not be started") from None
        self.pid, self.layers = int(pid), frozenset(layers)  # told before it has seen any model

    def run(self, message: Any, signature: calls.Signature) -> calls.Outcome | None:
        """Return what came of a call, or None when the worker died of it."""
        began = time.monotonic()
        try:
            channel.send(self._channel, message)
            outcome = calls.outcome(channel.receive(self._channel, self._most_bytes), signature)
        except (OSError, EOFError):
            return None
        except channel.Garbled as error:
            return calls.Outcome(time.monotonic() - began, error=ComputeFailed(str(error)))
        possible_s = (time.monotonic() - began) * (os.cpu_count() or 1)
        return replace(outcome, cpu_s=min(outcome.cpu_s, possible_s))

    def kill(self) -> None:
        """End the process, whatever it has started, and with them the call that waits for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process and remove what it has written."""
        self.kill()
        self._channel.close()
        self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


class WarmPool(Executor):
    """`slots` confined processes with TVM loaded, forked from one that loaded it; they die with this process.

    `cores` are the CPU cores that all of them may use, None for any. A worker that holds more than
    `memory_bytes` of private memory gets no more, which ends its call, and so does `cpu_s` of processor time.
    They run functions of `packages` alone, and start `programs`, linkers where these are not given; `load`,
    one of the hub's functions, is what they have been through before.
    """

    def __init__(
        self,
        slots: int,
        *,
        cores: Sequence[int] | None = None,
        memory_bytes: int = MEMORY_BYTES,
        cpu_s: float = CPU_S,
        packages: Sequence[str] = calls.OURS,
        programs: Sequence[Path] | None = None,
        load: str = LOAD,
    ) -> None:
        self.slots = slots
        self._memory_bytes = memory_bytes
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._running: set[_Call] = set()
        self._closed = False
        self._folder = tempfile.TemporaryDirectory(prefix="resonator-compute-", ignore_cleanup_errors=True)
        self._numbers = itertools.count()
        self._told_of = False
        terms = nursery.Terms(
            folder=self._folder.name,
            load=load,
            packages=tuple(packages),
            programs=[str(program) for program in (link.programs() if programs is None else programs)],
            path=sys.path,
            cores=sorted(cores) if cores else [],
            memory_bytes=memory_bytes,
            cpu_s=cpu_s,
        )
        self._matron = Matron(terms)
        self._threads = [
            threading.Thread(target=self._serve, name=f"compute-{slot}", daemon=True) for slot in range(slots)
        ]

    def wait_until_warm(self) -> None:
        """Block until TVM is loaded, about 4 s. Raises `ComputeFailed` if that fails."""
        self._matron.wait_until_warm()
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run `fn(*args)`, a stage, in the next free worker. Keyword arguments are not taken.

        Raises TypeError for what is no stage, or for arguments that are not what its annotations say.
        """
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
        self._matron.end(patience=any(thread.ident is not None for thread in self._threads))
        self._folder.cleanup()

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
            if call.set_running_or_notify_cancel():
                worker = self._run(call, worker)
        if worker is not None:
            worker.close()

    def _run(self, call: _Call, worker: _Worker | None) -> _Worker | None:
        """Have a call run, by this worker if there is one; return the worker if it is still good."""
        for _ in range(ATTEMPTS):
            try:
                worker = worker or self._fork()
            except (ComputeFailed, channel.Garbled, OSError) as error:
                call.set_exception(ComputeFailed(f"{call.name} did not run: {error}"))
                return None
            self._running.add(call)
            outcome = call.run_on(worker)
            self._running.discard(call)
            if outcome is not None or call.unwanted:
                break
            worker.close()
            worker = None
        if self._settle(call, outcome) and not call.signature.once:
            return worker
        if worker is not None:
            worker.close()
        return None

    def _fork(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            number = next(self._numbers)
            folder = Path(self._folder.name, str(number))
            folder.mkdir(mode=0o700, parents=True)  # a nursery that ended may have taken all of them with it
            self._matron.fork(number, theirs)
        worker = _Worker(ours, folder, self._memory_bytes)
        missing = {sandbox.LANDLOCK, sandbox.SECCOMP}.difference(worker.layers)
        if missing and not self._told_of:
            self._told_of = True
            log.warning(
                f"models are read without {' and '.join(sorted(missing))}, which this Linux does not have"
            )
        return worker

    def _settle(self, call: _Call, outcome: calls.Outcome | None) -> bool:
        """Give the call its result; return whether its worker is still good."""
        if outcome is None:
            reason = "its process was killed, crashed or ran out of memory"
            call.set_exception(ComputeFailed(f"{call.name} did not finish: {reason}."))
        elif isinstance(outcome.error, MemoryError):
            limit = f"the {self._memory_bytes / 2**30:g} GiB that a worker may use"
            call.set_exception(ComputeFailed(f"{call.name} did not finish: it ran out of memory, {limit}."))
        elif outcome.error is not None:
            call.set_exception(outcome.error)
            return not isinstance(outcome.error, ComputeFailed)
        else:
            call.set_result(outcome.result)
            return True
        return False
