"""The filter of system calls: most pass, some fail with EPERM, as they would for want of a privilege."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator, Sequence

from resonator.sandbox.libc import prctl
from resonator.sandbox.system_calls import DENIED, NUMBERS, UNKNOWN_FROM

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Classic BPF (linux/bpf_common.h), and where struct seccomp_data has what
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_EQUAL, _AT_LEAST, _HAS_BIT = 0x15, 0x35, 0x45
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000

_CLONE_THREAD, _CLONE_VFORK = 0x10000, 0x4000
_TO_START_PROGRAMS = ("vfork", "execve")
_MAP_SHARED_ANONYMOUS = 0x01 | 0x20
_PRCTL = (1, 4, 35, 0x59616D61)
"""Not to outlive the agent, to be dumped or traced, nor to look like another program."""
_FCNTL = (8, 10, 15)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX: signals to whoever is named the owner of a file."""
_IOCTL = (0x8901, 0x8902, 0x5412, 0x541C)
"""The same by FIOSETOWN and SIOCSPGRP; and typing into a terminal by TIOCSTI and TIOCLINUX."""

_Block = Sequence[bytes]


def is_known() -> bool:
    """Whether this Linux filters system calls, and the calls of this architecture are known."""
    return platform.machine() in _ARCHITECTURES and os.path.exists("/proc/sys/kernel/seccomp")


def restrict(*, programs: bool) -> bool:
    """Set the filter for this process for good; return whether its architecture's calls are known.

    With `programs` it may start others, which Landlock chooses.
    """
    architecture = _ARCHITECTURES.get(platform.machine())
    if architecture is None:
        return False
    program = b"".join(_filter(architecture, programs))
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header)
    return True


def _filter(architecture: int, programs: bool) -> Iterator[bytes]:
    """Yield the filter. Signals and limits are for this process alone; `clone` makes threads, no processes,
    but with `programs` those that stand in for this one until they have become another program.

    Calls that are new, and with them 32-bit ones, are told not to exist, so that libraries do without: nobody
    knows yet what they may be good for, and a filter cannot see the arguments of `clone3`.
    """
    own = os.getpid()
    yield _instruction(_LOAD, _ARCHITECTURE)
    yield from _unless(_EQUAL, architecture, _fail(errno.EPERM))
    yield _instruction(_LOAD, _NUMBER)
    yield from _if(_AT_LEAST, UNKNOWN_FROM, _fail(errno.ENOSYS))
    passes = {NUMBERS.get(name) for name in _TO_START_PROGRAMS} if programs else set()
    for number in sorted(set(DENIED.values()) - passes):
        yield from _if(_EQUAL, number, _fail(errno.EPERM))
    for name in ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        yield from _only(name, 0, _EQUAL, own)
    yield from _only("prlimit64", 0, _EQUAL, 0, own)
    yield from _only("clone", 0, _HAS_BIT, _CLONE_THREAD | (_CLONE_VFORK if programs else 0))
    yield from _not("prctl", 0, *_PRCTL)
    yield from _not("fcntl", 1, *_FCNTL)
    yield from _not("ioctl", 1, *_IOCTL)
    # Memory that is shared is not counted as this process's.
    yield from _not("mmap", 3, _MAP_SHARED_ANONYMOUS, mask=_MAP_SHARED_ANONYMOUS)
    yield from _allow()


def _only(name: str, argument: int, test: int, *values: int) -> _Block:
    """Decide on a call by its argument of that position: it passes when one of the tests holds."""
    passes = [line for value in values for line in _if(test, value, _allow())]
    return _if(_EQUAL, NUMBERS[name], [_argument(argument), *passes, *_fail(errno.EPERM)])


def _not(name: str, argument: int, *values: int, mask: int = 0xFFFFFFFF) -> _Block:
    """Decide on a call by its argument of that position: it fails for these values."""
    fails = [line for value in values for line in _if(_EQUAL, value, _fail(errno.EPERM))]
    masked = [_argument(argument), _instruction(_AND, mask)]
    return _if(_EQUAL, NUMBERS[name], [*masked, *fails, *_allow()])


def _if(test: int, value: int, then: _Block) -> _Block:
    return [_instruction(test, value, 0, len(then)), *then]


def _unless(test: int, value: int, then: _Block) -> _Block:
    return [_instruction(test, value, len(then), 0), *then]


def _argument(position: int) -> bytes:
    return _instruction(_LOAD, _ARGUMENTS + 8 * position)


def _allow() -> _Block:
    return [_instruction(_RETURN, _ALLOW)]


def _fail(error: int) -> _Block:
    return [_instruction(_RETURN, _FAIL | error)]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
