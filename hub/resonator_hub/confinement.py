"""What a worker gives away before its first call: it reads models of strangers, in C++."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

from resonator import sandbox

MAX_FILES = 256
MAX_PROCESSES = 16384
"""Of this user in all: whatever goes wrong here leaves room for others."""
EXPENDABLE = "500"
"""Where the machine runs out of memory, the kernel ends a worker before the hub."""
_MAPPED = 2**30
"""What a worker may map beside its own memory: libraries and files."""
_PR_SET_PDEATHSIG = 1


def confine(
    folder: Path, readable: Sequence[Path], programs: Sequence[Path], memory_bytes: int
) -> tuple[str, ...]:
    """Shut this process into `folder` for good, and return which layers of the sandbox are in place.

    It writes there alone, reads its libraries and `readable`, starts `programs` only, and opens no sockets.
    It gets no more than `memory_bytes` of private memory, in files of at most as much each, and dies with
    its parent.
    """
    os.setpgid(0, 0)  # so that its linkers can be ended with it
    _die_with_parent()
    with contextlib.suppress(PermissionError):  # where the hub is more expendable than that
        Path("/proc/self/oom_score_adj").write_text(EXPENDABLE)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, memory_bytes)
    _limit(resource.RLIMIT_AS, _mapped_bytes() + memory_bytes + _MAPPED)  # counts shared memory, too
    _limit(resource.RLIMIT_FSIZE, memory_bytes)
    _limit(resource.RLIMIT_NOFILE, MAX_FILES)
    _limit(resource.RLIMIT_NPROC, MAX_PROCESSES)
    os.chdir(folder)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    return sandbox.enter(folder, readable, programs)


def allow_processor_time(seconds: float) -> None:
    """Have the kernel end this process when it has computed for so much longer, in all of its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(usage.ru_utime + usage.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _limit(what: int, most: int) -> None:
    """Set a limit, unless there is a lower one already."""
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def _mapped_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


def _die_with_parent() -> None:
    """Have the kernel end this process when its parent ends, however that happens."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
