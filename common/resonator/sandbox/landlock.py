"""Landlock: which files this process reads and writes, whoever its user is."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterable, Sequence
from glob import glob
from pathlib import Path

from resonator.sandbox.libc import checked, syscall

# linux/landlock.h; these numbers are the same on every architecture
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE = sum(1 << bit for bit in range(4, 13))
"""To make files of any kind, and to remove them."""
_MAKE_PLAIN = sum(1 << bit for bit in (4, 5, 7, 8))
"""Of these, to make folders and regular files, and to remove them."""
_REFER, _TRUNCATE, _CONTROL_DEVICE = 1 << 13, 1 << 14, 1 << 15
_SINCE = {2: _REFER, 3: _TRUNCATE, 5: _CONTROL_DEVICE}
"""Rights that later versions of Landlock know: to move between folders, to truncate, and ioctl of devices."""
_NET = 0b11
"""To bind and to connect TCP sockets, since version 4."""
_SCOPED = 0b11
"""Abstract Unix sockets of, and signals to, processes outside, since version 6."""

# Where programs, libraries and what the processor is like are read from.
_READABLE = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/ld.so.conf", "/sys", "/dev/urandom")
_PROC = tuple(f"/proc/{name}" for name in ("self", "cpuinfo", "meminfo", "stat", "sys", "driver"))
"""Of other processes nothing is read."""
_DEVICES = ("/dev/null", "/dev/nvidia*", "/dev/dri/*")


def known_version() -> int:
    """Return the version of Landlock that this Linux has; less than 1 where it has none."""
    return syscall(_CREATE_RULESET, None, 0, _VERSION)


def restrict(scratch: Path, readable: Iterable[Path], programs: Sequence[Path]) -> bool:
    """Restrict this process for good, as `enter` says; return whether this Linux can."""
    version = known_version()
    if version < 1:
        return False
    later = sum(right for since, right in _SINCE.items() if version >= since)
    read, write = _READ_FILE | _READ_DIR, _WRITE_FILE | later & _TRUNCATE
    files = read | _WRITE_FILE | _MAKE | _EXECUTE | later
    attributes = struct.pack("=QQQ", files, _NET if version >= 4 else 0, _SCOPED if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = checked(syscall(_CREATE_RULESET, attributes, size, 0))
    try:
        _allow(ruleset, scratch, read | write | (_MAKE_PLAIN if programs else 0))
        for path in (*map(Path, (*_READABLE, *_PROC, sys.prefix, sys.base_prefix)), *readable):
            _allow(ruleset, path, read)
        for path in (*programs, *(_loaders() if programs else ())):
            _allow(ruleset, path, read | _EXECUTE)
        for pattern in _DEVICES:
            for device in glob(pattern):
                _allow(ruleset, Path(device), _READ_FILE | _WRITE_FILE | later & _CONTROL_DEVICE)
        checked(syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return True


def _loaders() -> list[Path]:
    """Return what the kernel executes to load a program's libraries."""
    return [Path(path) for folder in ("/lib", "/lib64") for path in glob(f"{folder}/ld-*.so*")]


def _allow(ruleset: int, path: Path, rights: int) -> None:
    """Allow what is done to a file, or below a folder; what is not there needs no leave."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            rights &= ~_READ_DIR
        rule = struct.pack("=Qi", rights, descriptor)
        checked(syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
    finally:
        os.close(descriptor)
