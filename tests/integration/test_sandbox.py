"""The sandbox that kernels run in: what it takes away is gone, in a process that has entered it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from resonator_agent.sandbox import LANDLOCK, SECCOMP

PROBE = """
import ctypes, json, os, socket, sys, threading
from pathlib import Path
from resonator_agent import sandbox

scratch, blobs, secret, agent = sys.argv[1:]
layers = sandbox.enter(Path(scratch), [Path(blobs)])
libc = ctypes.CDLL(None, use_errno=True)


def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return error.strerror
    return "done"


def thread():
    one = threading.Thread(target=lambda: None)
    one.start()
    one.join()


def connect():
    socket.create_connection(("127.0.0.1", 9), 1)


def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


results = {
    "write to scratch": outcome(lambda: Path(scratch, "x").write_text("x")),
    "remove from scratch": outcome(lambda: Path(scratch, "x").unlink()),
    "read a blob": outcome(Path(blobs, "blob").read_bytes),
    "start a thread": outcome(thread),
    "read its own statistics": outcome(Path("/proc/self/task", str(os.getpid()), "schedstat").read_text),
    "load a library": outcome(lambda: ctypes.CDLL("libm.so.6")),
    "raise a signal of its own": outcome(lambda: os.kill(os.getpid(), 0)),
    "write elsewhere": outcome(lambda: Path(blobs, "y").write_text("y")),
    "change a blob": outcome(lambda: Path(blobs, "blob").open("r+b")),
    "remove a blob": outcome(lambda: Path(blobs, "blob").unlink()),
    "read a secret": outcome(Path(secret).read_bytes),
    "read the agent's memory": outcome(lambda: open(f"/proc/{agent}/mem", "rb")),
    "read the agent's environment": outcome(lambda: open(f"/proc/{agent}/environ", "rb").read()),
    "signal the agent": outcome(lambda: os.kill(int(agent), 0)),
    "trace the agent": outcome(lambda: call("ptrace", 16, int(agent), None, None)),
    "open a socket": outcome(connect),
    "open a Unix socket": outcome(lambda: socket.socket(socket.AF_UNIX)),
    "run a program": outcome(lambda: os.execv("/bin/true", ["true"])),
    "make a process": outcome(os.fork),
    "enter a namespace": outcome(lambda: call("unshare", 0x10000000)),
}
print(json.dumps({"layers": layers, "results": results}))
"""
ALLOWED = {
    "write to scratch",
    "remove from scratch",
    "read a blob",
    "start a thread",
    "read its own statistics",
    "load a library",
    "raise a signal of its own",
}


def test_sandbox_attack_of_a_kernel_that_wants_more_than_to_compute(tmp_path: Path) -> None:
    scratch, blobs, secret = tmp_path / "scratch", tmp_path / "blobs", tmp_path / "own.key"
    for folder in (scratch, blobs):
        folder.mkdir()
    (blobs / "blob").write_bytes(b"kernel")
    secret.write_bytes(b"secret")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as agent:
        done = subprocess.run(
            [sys.executable, "-c", PROBE, *map(str, (scratch, blobs, secret, agent.pid))],
            cwd=scratch,
            capture_output=True,
            text=True,
            timeout=60,
        )
        agent.kill()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if set(found["layers"]) != {LANDLOCK, SECCOMP}:
        pytest.skip(f"this machine has only {found['layers']}")
    assert {what for what, outcome in found["results"].items() if outcome == "done"} == ALLOWED
    assert (blobs / "blob").read_bytes() == b"kernel"
