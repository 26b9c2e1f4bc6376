"""The profiler's process: loads kernels, races and times them; the only one of the agent's that runs them.

Started by `profiler.Profiler`. It limits and pins itself before it loads the TVM runtime, and dies with
the agent. Imports stay few: it is resident as long as the agent is.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resonator_agent import racing, wire

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Arrays = dict[str, NDArray[Any]]

_PR_SET_PDEATHSIG = 1
_NO_MEMORY = ("bad_alloc", "out of memory", "cannot allocate memory", "failed to allocate")


def confine(cores: list[int], memory: int, parent: int) -> None:
    """Pin this process to `cores`, limit its memory (bytes) and files, and have it die with `parent`."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the agent is gone")
    os.sched_setaffinity(0, cores)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    # Private writable memory only: CUDA reserves address space without end.
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


class Worker:
    """Runs one kernel after the other, keeping the arguments it allocated by their shapes."""

    def __init__(self, folder: Path, memory: int):
        import tvm

        from resonator_agent.arguments import Arguments

        self._tvm = tvm
        self._folder = folder
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
        # TVM goes by the suffix, and blobs have none.
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            named = Path(folder, "kernel.so")
            os.link(job["blob"], named)
            try:
                library = self._tvm.runtime.load_module(str(named))
                function = library["main"]
            except Exception as error:
                return {"failure": "BUILD_ERROR", "detail": f"the kernel does not load: {error}"[:500]}
        arguments = self.arguments.get(job["arguments"], device)

        def run() -> float:
            start = time.perf_counter()
            function(*arguments)
            device.sync()
            return time.perf_counter() - start

        def full(protocol: racing.Protocol) -> tuple[float, ...]:
            evaluator = library.time_evaluator(
                "main",
                device,
                number=protocol.number,
                repeat=protocol.repeat,
                min_repeat_ms=protocol.min_repeat_ms,
                cooldown_interval_ms=protocol.cooldown_ms,
            )
            return tuple(evaluator(*arguments).results)

        return self._raced(job, run, full)

    def _model(self, job: dict[str, Any]) -> dict[str, Any]:
        from resonator.accuracy import worst_error
        from resonator.bundle import BundleInvalid, load

        try:
            model = load(job["blob"])
        except BundleInvalid as error:
            return {"failure": "BUILD_ERROR", "detail": str(error)[:500]}
        inputs, expected = self._reference(job["reference"], model.manifest.inputs)
        outputs: dict[str, NDArray[Any]] = {}

        def run() -> float:
            start = time.perf_counter()
            outputs.update(model(inputs))
            return time.perf_counter() - start

        def full(protocol: racing.Protocol) -> tuple[float, ...]:
            number = max(protocol.number, round(protocol.min_repeat_ms / 1000.0 / max(run(), 1e-6)))
            return tuple(model.time(inputs, repeat=protocol.repeat, number=number))

        timed = self._raced(job, run, full)
        return timed if expected is None else {**timed, "error": worst_error(outputs, expected)}

    def _raced(self, job: dict[str, Any], run: Any, full: Any) -> dict[str, Any]:
        protocol = racing.Protocol(**job["protocol"])
        verdict = racing.race(run, full, protocol, job["race_s"], time.perf_counter)
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


def main() -> None:
    """Serve the agent at the other end of the socket until it is gone."""
    config = json.loads(sys.argv[1])
    confine(config["cores"], config["memory"], config["parent"])
    with socket.socket(fileno=config["socket"]) as agent:
        worker = Worker(Path(config["folder"]), config["memory"])
        agent.sendall(wire.frame({"ready": True}))
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
