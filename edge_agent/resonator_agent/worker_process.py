"""One life of the profiler's process, seen from the agent: started, asked, ended, and what it died of."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from resonator.errors import quotable
from resonator.failures import Failure, FailureKind
from resonator_agent import wire

_SURELY_ITS_OWN = 1.02
"""A peak must be this much above what was inherited to be the child's own; the kernel counts roughly."""
_MEMORY_SHARE = 0.7
"""A process that died with this much of its memory limit resident died of it."""
_DISK_SHARE = 0.25
"""How much of the disk's free space a file written by the process may take; there are two such files."""
_HANDED_ON = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_", "PYTHON", "VIRTUAL_ENV", "TVM_", "CUDA_", "NVIDIA_")
"""How the variables begin that the process gets to see; others may hold secrets."""
_NO_MEMORY = ("bad_alloc", "out of memory", "cannot allocate memory")


@dataclass(frozen=True)
class Limits:
    """The profiler's cores and bytes of memory, and how much of the cores others may take (0..1)."""

    cores: tuple[int, ...]
    memory: int
    max_foreign_load: float


class WorkerProcess:
    """A process that runs kernels; it is asked one thing at a time.

    It fills files that lie in `folder` alone, none of them larger than its memory, and besides these and its
    libraries reads only what is below `readable`.
    `sandbox` has the layers that keep it to that, once it is warm.
    """

    def __init__(self, limits: Limits, folder: Path, readable: Sequence[Path] = ()):
        self._limits = limits
        self._socket, theirs = socket.socketpair()
        self._said: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._writer: asyncio.StreamWriter | None = None
        config = {
            "cores": limits.cores,
            "memory": limits.memory,
            "disk": min(limits.memory, int(_DISK_SHARE * shutil.disk_usage(folder).free)),
            "parent": os.getpid(),
            "socket": theirs.fileno(),
            "folder": str(folder),
            "readable": [str(path) for path in readable],
        }
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "resonator_agent.profiler_worker", json.dumps(config)],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                pass_fds=[theirs.fileno()],
                env=_environment(limits),
                cwd=folder,  # with -m, Python looks for modules there
                start_new_session=True,  # Ctrl-C in a terminal is for the agent to act upon
            )
        self.pid = self._popen.pid
        self._inherited = _peak()

    async def warm(self) -> None:
        """Wait until the process has loaded the TVM runtime; raises EOFError when it is gone before."""
        self._reader, self._writer = await asyncio.open_connection(sock=self._socket)
        self.sandbox: list[str] = (await wire.read(self._reader))["sandbox"]

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message that has no answer."""
        assert self._writer is not None, "warm first"
        self._writer.write(wire.frame(message))

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message and return the answer; raises EOFError when the process dies over it."""
        self.tell(message)
        return await wire.read(self._reader)

    def kill(self) -> None:
        """End the process at once; whoever asked it something sees it gone."""
        if self._popen.returncode is None:
            os.killpg(self.pid, signal.SIGKILL)

    async def end(self, patience_s: float = 0.0) -> Failure:
        """Reap the process, after killing it unless it ends by itself in time; say what it died of."""
        waiting = asyncio.ensure_future(asyncio.to_thread(os.wait4, self.pid, 0))
        await asyncio.wait({waiting}, timeout=patience_s)
        if not waiting.done():
            self.kill()
        _, status, usage = await waiting
        self._popen.returncode = os.waitstatus_to_exitcode(status)
        if self._writer is None:
            self._socket.close()
        else:
            self._writer.close()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()
        with self._said:
            said = self.last_words()
        # A child's peak begins at its parent's: below that, nothing is known of its own.
        peak = usage.ru_maxrss * 1024
        known = peak if peak > _SURELY_ITS_OWN * self._inherited else 0
        return _autopsy(self._popen.returncode, known, self._limits.memory, said)

    def last_words(self) -> str:
        """Return the end of what the process printed, without what a terminal would obey."""
        self._said.seek(max(0, os.fstat(self._said.fileno()).st_size - 4000))
        lines = self._said.read(4000).decode(errors="replace").splitlines()
        return "\n".join(quotable(line, 500) for line in lines).strip()


def _peak() -> int:
    """Return the most bytes of memory that this process has held: a child begins with its parent's peak."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _environment(limits: Limits) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if name.startswith(_HANDED_ON)},
        "TVM_USE_RUNTIME_LIB": "1",
        "TVM_NUM_THREADS": str(len(limits.cores)),
        # TVM would pin its threads to cores of its own choice, undoing ours.
        "TVM_BIND_THREADS": "0",
        # numpy only fills arguments: its threads would take memory and processor time for nothing.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }


def _autopsy(exit_code: int, peak: int, limit: int, said: str) -> Failure:
    last = said.splitlines()[-1][:500] if said else ""
    if exit_code >= 0:
        return Failure(kind=FailureKind.KERNEL_CRASH, detail=f"the process exited with {exit_code}; {last}")
    name = signal.Signals(-exit_code).name
    if peak >= _MEMORY_SHARE * limit:
        detail = f"{name} at {peak // 2**20} MiB of the {limit // 2**20} MiB it may use"
        return Failure(kind=FailureKind.KERNEL_MEMORY, detail=detail)
    if exit_code == -signal.SIGKILL or any(sign in said.lower() for sign in _NO_MEMORY):
        return Failure(kind=FailureKind.KERNEL_MEMORY, detail=f"{name}, out of memory; {last}".rstrip("; "))
    return Failure(kind=FailureKind.KERNEL_CRASH, detail=f"the kernel died of {name}; {last}".rstrip("; "))
