"""Takes from this process what a kernel has no use for: privileges, network, programs, other people's files.

Everything here works without privileges, cannot be taken off again, and is inherited by threads. Landlock
(files, Linux 5.13 and later) and seccomp (system calls) act where the kernel has them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from resonator.errors import ResonatorError
from resonator_agent.sandbox import landlock, privileges, seccomp

LANDLOCK, SECCOMP = "landlock", "seccomp"


def enter(scratch: Path, readable: Iterable[Path]) -> tuple[str, ...]:
    """Restrict this process for good, and return which layers are in place.

    It may fill files that lie in `scratch` but make none, and read there, below `readable`, and where
    programs and libraries lie. Raises `ResonatorError` where there are other threads: these would stay
    outside.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        raise ResonatorError("a process with several threads cannot enter the sandbox")
    readable = list(readable)
    privileges.drop()
    layers = ((LANDLOCK, landlock.restrict(scratch, readable)), (SECCOMP, seccomp.restrict()))
    for path in (scratch, *readable):
        if not os.access(path, os.R_OK):
            raise ResonatorError(f"{path} is not readable without root's privileges; whose is it?")
    return tuple(layer for layer, there in layers if there)
