"""Takes from this process what a kernel has no use for: network, other programs, other people's files.

Two layers of Linux that need no privileges, each where the kernel has it: Landlock for files (5.13 and later)
and seccomp for system calls. Neither can be taken off again, and threads inherit both.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from glob import glob
from pathlib import Path

LANDLOCK, SECCOMP = "landlock", "seccomp"

_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 22, 38
_SECCOMP_MODE_FILTER = 2

# linux/landlock.h; these numbers are the same on every architecture
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_CHANGE = sum(1 << bit for bit in (1, *range(4, 13)))
"""To write, remove, and make files of any kind."""
_SINCE = {2: 1 << 13, 3: 1 << 14}
"""Rights that later versions of Landlock know: to move between folders, and to truncate."""
_NET = 0b11
"""To bind and to connect TCP sockets, since version 4."""
_SCOPED = 0b11
"""Abstract Unix sockets of, and signals to, processes outside, since version 6."""

# Where programs, libraries and what the processor is like are read from.
_READABLE = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/ld.so.conf", "/sys")
_PROC = tuple(f"/proc/{name}" for name in ("self", "cpuinfo", "meminfo", "stat", "sys", "driver"))
"""Of other processes nothing is read."""
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/nvidia*", "/dev/dri/*")

# System calls by architecture: AUDIT_ARCH, then numbers by name (asm/unistd.h).
_X86_64, _AARCH64 = 0xC000003E, 0xC00000B7
_NUMBERS: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        _X86_64,
        {
            **{"socket": 41, "connect": 42, "accept": 43, "bind": 49, "listen": 50, "accept4": 288},
            **{"clone": 56, "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "clone3": 435},
            **{"kill": 62, "tkill": 200, "tgkill": 234, "ptrace": 101, "pidfd_open": 434},
            **{"process_vm_readv": 310, "process_vm_writev": 311, "pidfd_getfd": 438, "kcmp": 312},
            **{"mount": 165, "umount2": 166, "chroot": 161, "pivot_root": 155, "unshare": 272, "setns": 308},
            **{"init_module": 175, "finit_module": 313, "delete_module": 176, "kexec_load": 246},
            **{"bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425},
            **{"keyctl": 250, "add_key": 248, "request_key": 249, "reboot": 169, "personality": 135},
        },
    ),
    "aarch64": (
        _AARCH64,
        {
            **{"socket": 198, "connect": 203, "accept": 202, "bind": 200, "listen": 201, "accept4": 242},
            **{"clone": 220, "execve": 221, "execveat": 281, "clone3": 435},
            **{"kill": 129, "tkill": 130, "tgkill": 131, "ptrace": 117, "pidfd_open": 434},
            **{"process_vm_readv": 270, "process_vm_writev": 271, "pidfd_getfd": 438, "kcmp": 272},
            **{"mount": 40, "umount2": 39, "chroot": 51, "pivot_root": 41, "unshare": 97, "setns": 268},
            **{"init_module": 105, "finit_module": 273, "delete_module": 106, "kexec_load": 104},
            **{"bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "io_uring_setup": 425},
            **{"keyctl": 219, "add_key": 217, "request_key": 218, "reboot": 142, "personality": 92},
        },
    ),
}
_CLONE_THREAD = 0x10000
_X32 = 0x40000000

# Classic BPF (linux/bpf_common.h), and where struct seccomp_data has what
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_IF_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000

_libc = ctypes.CDLL(None, use_errno=True)


def enter(scratch: Path, readable: Iterable[Path]) -> tuple[str, ...]:
    """Restrict this process for good, and return which layers are in place.

    It may write below `scratch` alone, and read there, below `readable`, and where programs and libraries
    lie. To be called before there are other threads, which would stay outside.
    """
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    return tuple(
        layer for layer, there in ((LANDLOCK, _landlock(scratch, readable)), (SECCOMP, _seccomp())) if there
    )


def _landlock(scratch: Path, readable: Iterable[Path]) -> bool:
    version = _libc.syscall(_CREATE_RULESET, None, 0, _VERSION)
    if version < 1:
        return False
    change = _CHANGE | sum(right for since, right in _SINCE.items() if version >= since)
    read = _READ_FILE | _READ_DIR
    attributes = struct.pack(
        "=QQQ", change | read | _EXECUTE, _NET if version >= 4 else 0, _SCOPED if version >= 6 else 0
    )
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _checked(_libc.syscall(_CREATE_RULESET, attributes, size, 0))
    try:
        _allow(ruleset, scratch, read | change)
        for path in map(Path, (*_READABLE, *_PROC, sys.prefix, sys.base_prefix, *sys.path)):
            _allow(ruleset, path, read)
        for path in readable:
            _allow(ruleset, path, read)
        for pattern in _DEVICES:
            for device in glob(pattern):
                _allow(ruleset, Path(device), _READ_FILE | _WRITE_FILE)
        _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return True


def _allow(ruleset: int, path: Path, rights: int) -> None:
    """Allow what is done to a file, or below a folder; what is not there needs no leave."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            rights &= _READ_FILE | _WRITE_FILE
        rule = struct.pack("=Qi", rights, descriptor)
        _checked(_libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
    finally:
        os.close(descriptor)


def _seccomp() -> bool:
    known = _NUMBERS.get(platform.machine())
    if known is None:
        return False
    program = b"".join(_filter(*known))
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header)
    return True


def _filter(architecture: int, numbers: dict[str, int]) -> Iterator[bytes]:
    """Yield the filter: most calls pass, some fail with EPERM, as they would for want of a privilege.

    Signals go to this process alone; `clone` makes threads and no processes; `clone3`, whose arguments a
    filter cannot see, is told not to exist, so that the C library does without.
    """
    thread, unknown = numbers["clone"], numbers["clone3"]
    own = [numbers["kill"], numbers["tgkill"]]
    denied = sorted(set(numbers.values()).difference(own, [thread, unknown]))
    yield from _unless(_ARCHITECTURE, _JUMP_EQUAL, architecture, errno.EPERM)
    yield _instruction(_LOAD, _NUMBER)
    yield from _fail_if(_JUMP_AT_LEAST, _X32, errno.EPERM)
    for number in denied:
        yield from _fail_if(_JUMP_EQUAL, number, errno.EPERM)
    yield from _fail_if(_JUMP_EQUAL, unknown, errno.ENOSYS)
    for number in own:
        yield from _pass_only(number, _JUMP_EQUAL, os.getpid())
    yield from _pass_only(thread, _JUMP_IF_SET, _CLONE_THREAD)
    yield _instruction(_RETURN, _ALLOW)


def _unless(offset: int, test: int, value: int, error: int) -> Sequence[bytes]:
    return (
        _instruction(_LOAD, offset),
        _instruction(test, value, 1, 0),
        _instruction(_RETURN, _FAIL | error),
    )


def _fail_if(test: int, value: int, error: int) -> Sequence[bytes]:
    return _instruction(test, value, 0, 1), _instruction(_RETURN, _FAIL | error)


def _pass_only(number: int, test: int, value: int) -> Sequence[bytes]:
    """Decide on the system call `number` by its first argument; others go on."""
    return (
        _instruction(_JUMP_EQUAL, number, 0, 4),
        _instruction(_LOAD, _FIRST_ARGUMENT),
        _instruction(test, value, 0, 1),
        _instruction(_RETURN, _ALLOW),
        _instruction(_RETURN, _FAIL | errno.EPERM),
    )


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _prctl(*arguments: int | bytes) -> None:
    _checked(_libc.prctl(*arguments, *(0,) * (5 - len(arguments))))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
