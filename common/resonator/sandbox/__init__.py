"""Takes from this process what computing has no use for: privileges, network, programs, other people's files.

Kernels are profiled in it, and models are read, searched and built in it. Everything here works without
privileges, cannot be taken off again, and is inherited by threads and by programs that are started. Landlock
(files, Linux 5.13 and later) and seccomp (system calls) act where the kernel has them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from resonator.errors import ResonatorError
from resonator.sandbox import landlock, privileges, seccomp

LANDLOCK, SECCOMP = "landlock", "seccomp"


def available() -> tuple[str, ...]:
    """Return which layers this Linux has."""
    layers = ((LANDLOCK, landlock.known_version() >= 1), (SECCOMP, seccomp.is_known()))
    return tuple(layer for layer, there in layers if there)


def enter(scratch: Path, readable: Iterable[Path], programs: Sequence[Path] = ()) -> tuple[str, ...]:
    """Restrict this process for good, and return which layers are in place.

    It may fill files that lie in `scratch` but make none, and read there, below `readable`, and where
    programs and libraries lie. With `programs` it may start these, confined as it is, and make the files
    and folders in `scratch` that they need; it never makes a copy of itself that goes on. Raises
    `ResonatorError` where there are other threads: these would stay outside.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        raise ResonatorError("a process with several threads cannot enter the sandbox")
    readable = list(readable)
    privileges.drop()
    layers = (
        (LANDLOCK, landlock.restrict(scratch, readable, programs)),
        (SECCOMP, seccomp.restrict(programs=bool(programs))),
    )
    for path in (scratch, *readable):
        if not os.access(path, os.R_OK):
            raise ResonatorError(f"{path} is not readable without root's privileges; whose is it?")
    return tuple(layer for layer, there in layers if there)
