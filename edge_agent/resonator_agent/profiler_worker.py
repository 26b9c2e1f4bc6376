"""The profiler's process: loads kernels, races and times them; the only one of the agent's that runs them.

Started by `profiler.Profiler`. It limits and pins itself before it loads the TVM runtime, gives away what
kernels have no use for before the first of them is loaded, and dies with the agent. Imports stay few: it is
resident as long as the agent is.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resonator import sandbox
from resonator_agent import racing, wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    _Arrays = dict[str, NDArray[Any]]

_PR_SET_PDEATHSIG = 1
_LONG_S = 1e-3
"""A kernel's run is so long that it is no matter what calling it costs."""
MAX_FILES = 256
MAX_THREADS = 4096
"""How many threads more than now its user may have, whom others may run programs for as well."""
_NO_MEMORY = ("bad_alloc", "out of memory", "cannot allocate memory", "failed to allocate")


def confine(cores: list[int], memory: int, disk: int, parent: int) -> None:
    """Pin this process to `cores`, limit its memory and files (bytes), and have it die with `parent`.

    Its time is limited by the agent: it is as old as the agent, and every kernel has a time of its own.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the agent is gone")
    os.umask(0o077)
    os.sched_setaffinity(0, cores)
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: MAX_FILES,
        resource.RLIMIT_FSIZE: disk,
        resource.RLIMIT_NPROC: _threads_of_user() + MAX_THREADS,
        resource.RLIMIT_MSGQUEUE: 0,
        # Private writable memory only: CUDA reserves address space without end.
        resource.RLIMIT_DATA: memory,
    }
    for kind, most in limits.items():
        if (hard := resource.getrlimit(kind)[1]) != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(kind, (most, most))


def _threads_of_user() -> int:
    """Return how many threads there are of this user, as the limit of them counts."""
    own, threads = os.getuid(), 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.stat().st_uid == own:
                threads += len(os.listdir(process / "task"))
    return threads


class Worker:
    """Runs one kernel after the other, keeping the arguments it allocated by their shapes."""

    def __init__(self, memory: int):
        import tvm

        from resonator_agent.arguments import Arguments

        self._tvm = tvm
        self.arguments = Arguments(memory // 4)

    def perform(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run one kernel or model; return latencies in seconds, or a failure."""
        try:
            return self._model(job) if job["model"] else self._kernel(job)
        except MemoryError:
            return {"failure": "KERNEL_MEMORY", "detail": "an allocation failed at the memory limit"}
        except Exception as error:
            words = (str(error).strip().splitlines() or [type(error).__name__])[-1][:500]
            exhausted = any(sign in str(error).lower() for sign in _NO_MEMORY)
            return {"failure": "KERNEL_MEMORY" if exhausted else "KERNEL_CRASH", "detail": words}

    def _kernel(self, job: dict[str, Any]) -> dict[str, Any]:
        device = self._tvm.device(job["device_kind"], 0)
        try:
            library = self._tvm.runtime.load_module(job["blob"])
            function = library["main"]
        except Exception as error:
            return {"failure": "BUILD_ERROR", "detail": f"the kernel does not load: {error}"[:500]}
        arguments = self.arguments.get(job["arguments"], device)
        cooldown_ms = job["protocol"]["cooldown_ms"]

        def call() -> None:
            function(*arguments)
            device.sync()

        def means(number: int, count: int) -> Sequence[float]:
            # A long run is timed here: the evaluator would spend one more to warm up.
            if number == 1 and not cooldown_ms and (first_s := timed(call).took_s) > _LONG_S:
                return [first_s, *(timed(call).took_s for _ in range(count - 1))]
            # As many runs as are wanted, told at once: it need not look for how many fill a time.
            evaluator = library.time_evaluator(
                "main", device, number=number, repeat=count, cooldown_interval_ms=cooldown_ms
            )
            return tuple(evaluator(*arguments).results)

        return self._raced(job, call, means)

    def _model(self, job: dict[str, Any]) -> dict[str, Any]:
        from resonator.accuracy import worst_error
        from resonator.bundle import BundleInvalid, Model, read

        try:
            manifest, library = read(job["blob"])
            # Files are made by the agent: this process can fill those alone.
            unpacked = Path(job["unpacked"])
            unpacked.write_bytes(library)
            model = Model(manifest, unpacked)
        except BundleInvalid as error:
            return {"failure": "BUILD_ERROR", "detail": str(error)[:500]}
        inputs, expected = self._reference(job["reference"], model.manifest.inputs)
        outputs: dict[str, NDArray[Any]] = {}

        def call() -> None:
            outputs.update(model(inputs))

        def means(number: int, count: int) -> Sequence[float]:
            return model.time(inputs, repeat=count, number=number)

        found = self._raced(job, call, means)
        return found if expected is None else {**found, "error": worst_error(outputs, expected)}

    def _raced(
        self, job: dict[str, Any], call: Callable[[], object], means: Callable[[int, int], Sequence[float]]
    ) -> dict[str, Any]:
        protocol = racing.Protocol(**job["protocol"])
        kernel = racing.Kernel(lambda: timed(call), means, time.perf_counter)
        # A model's latency is what the user is told, with its spread; a kernel's only ranks it.
        verdict = racing.race(kernel, protocol, job["race_s"], thorough=job["model"])
        return {"latencies": [max(value, 1e-9) for value in verdict.latencies], "raced": verdict.raced}

    def _reference(self, path: str | None, specs: Any) -> tuple[_Arrays, _Arrays | None]:
        """Return a model's inputs, and the outputs it must have for them where a reference is given."""
        from numpy import load

        from resonator_agent.arguments import random

        if path is None:
            return {spec.name: random(list(spec.shape), spec.dtype) for spec in specs}, None
        with load(path, allow_pickle=False) as arrays:
            inputs = {name[3:]: arrays[name] for name in arrays.files if name.startswith("in:")}
            outputs = {name[4:]: arrays[name] for name in arrays.files if name.startswith("out:")}
        return inputs, outputs


def timed(call: Callable[[], object]) -> racing.Run:
    """Call once; return how long it took, and how long of that others had the cores."""
    waited_s, start = _waited_s(), time.perf_counter()
    call()
    took_s = time.perf_counter() - start
    return racing.Run(took_s, lost_s=min(took_s, _waited_s() - waited_s))


def _waited_s() -> float:
    """Return how long the threads of this process were ready to run while others had the cores, in sum."""
    waited_ns = 0
    for thread in os.listdir("/proc/self/task"):
        # A thread may have ended since; and not every kernel keeps these statistics.
        with contextlib.suppress(OSError):
            waited_ns += int(Path("/proc/self/task", thread, "schedstat").read_text().split()[1])
    return waited_ns * 1e-9


def main() -> None:
    """Serve the agent at the other end of the socket until it is gone."""
    config = json.loads(sys.argv[1])
    confine(config["cores"], config["memory"], config["disk"], config["parent"])
    with socket.socket(fileno=config["socket"]) as agent:
        worker = Worker(config["memory"])
        readable = [*config["readable"], *filter(os.path.exists, sys.path)]
        layers = sandbox.enter(Path(config["folder"]), map(Path, readable))
        agent.sendall(wire.frame({"sandbox": layers}))
        while True:
            try:
                job = wire.read_blocking(agent)
            except EOFError:
                return
            if "forget" in job:
                worker.arguments.clear()
            else:
                agent.sendall(wire.frame(worker.perform(job)))


if __name__ == "__main__":
    main()
