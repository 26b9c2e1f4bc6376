"""The C library's doors to the kernel that Python has none of its own for."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call; return what it returns, negative where it failed."""
    result: int = _libc.syscall(number, *arguments)
    return result


def prctl(option: int, *arguments: int | bytes) -> None:
    """Change what the kernel keeps of this process; raises OSError."""
    checked(_libc.prctl(option, *arguments, *(0,) * (4 - len(arguments))))


def checked(result: int) -> int:
    """Return what a call returned; raises OSError where that tells of a failure."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
