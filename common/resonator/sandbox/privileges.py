"""Gives away what sets a process above others: root's capabilities, and ways to gain them."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

from resonator.sandbox.libc import checked, prctl, syscall
from resonator.sandbox.system_calls import NUMBERS

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 4, 24, 38, 47
_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522


def drop() -> None:
    """Leave this process without capabilities and core dumps, and nothing to gain from other programs."""
    prctl(_PR_SET_DUMPABLE, 0)
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    prctl(_PR_CAP_AMBIENT, _CLEAR_ALL)
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        # It takes a privilege to give up what one may at most have; who has none gains none either.
        with contextlib.suppress(PermissionError):
            prctl(_PR_CAPBSET_DROP, capability)
    if NUMBERS and _permitted():
        header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
        checked(syscall(NUMBERS["capset"], header, bytes(24)))


def _permitted() -> int:
    """Return the set of this process's capabilities."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["CapPrm"], 16)
