"""One process as the hub and another, pinned to core 1, as the device: the stages without the service."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from statistics import median

from resonator.tensors import TensorSpec
from resonator_agent.worker_process import Limits, WorkerProcess

DEVICE_CORE = 1
RACE = 1.5
"""How many times slower than the best a kernel may be to deserve the full measurement."""
PROTOCOL = {"number": 3, "repeat": 3, "min_repeat_ms": 20, "cooldown_ms": 0, "timeout_s": 10.0}


class Device:
    """The agent's profiler process, asked one kernel at a time; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._process = self._start()

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._process.end())
        self._loop.close()

    def latency_s(
        self, library: bytes, arguments: tuple[TensorSpec, ...], race_s: float | None
    ) -> float | None:
        """Return the median of the repeats in seconds; None for a kernel that fails."""
        blob = self._folder / "kernel"
        blob.unlink(missing_ok=True)
        blob.write_bytes(library)
        request = {
            "blob": str(blob),
            "device_kind": "cpu",
            "arguments": [(list(spec.shape), spec.dtype) for spec in arguments],
            "race_s": race_s,
            "model": False,
            "reference": None,
            "protocol": PROTOCOL,
        }
        try:
            answer = self._loop.run_until_complete(asyncio.wait_for(self._process.ask(request), 20.0))
        except (EOFError, asyncio.TimeoutError):
            self._loop.run_until_complete(self._process.end())
            self._process = self._start()
            return None
        return median(answer["latencies"]) if "latencies" in answer else None

    def _start(self) -> WorkerProcess:
        process = WorkerProcess(Limits((DEVICE_CORE,), 4 * 2**30, 1.0), self._folder)
        self._loop.run_until_complete(process.warm())
        return process


def target() -> str:
    """Return this machine's TVM target with one core, as JSON."""
    return subprocess.run(
        [sys.executable, "-c", _TARGET], stdout=subprocess.PIPE, check=True, text=True
    ).stdout


_TARGET = """
import json, tvm.target.codegen
cpu = str(tvm.target.codegen.llvm_get_system_cpu())
print(json.dumps({"kind": "llvm", "mcpu": cpu, "num-cores": 1}), end="")
"""
