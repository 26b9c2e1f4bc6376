"""The sandbox that kernels run in: what it takes away is gone, in a process that has entered it."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from resonator.sandbox import LANDLOCK, SECCOMP
from resonator.sandbox.system_calls import NUMBERS

HEAD = """
import ctypes, errno, json, mmap, os, resource, signal, socket, sys, threading
from pathlib import Path
from resonator import sandbox
from resonator_agent import profiler_worker
from resonator.sandbox.system_calls import NUMBERS

scratch, blobs, secret, agent = sys.argv[1:]
MIB = 2**20
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
here = os.open(blobs, os.O_PATH)


def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return error.strerror
    except (RuntimeError, MemoryError, ValueError) as error:
        return str(error) or type(error).__name__
    return "done"


def outcomes(attempts):
    return {what: outcome(attempt) for what, attempt in attempts.items()}


def checked(result):
    if result in (-1, 2**64 - 1):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def call(name, *arguments):
    # What fails for what it is given has been let through.
    try:
        checked(libc.syscall(name if isinstance(name, int) else NUMBERS[name], *arguments))
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS, errno.EACCES):
            raise


def thread():
    one = threading.Thread(target=lambda: None)
    one.start()
    one.join()


def shared(flags, file=-1):
    address = checked(libc.mmap(None, ctypes.c_size_t(MIB), 3, flags, file, ctypes.c_long(0)))
    libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(MIB))
"""

PROBE = (
    HEAD
    + """
profiler_worker.confine(list(os.sched_getaffinity(0))[:1], 512 * MIB, 8 * MIB, os.getppid())
layers = sandbox.enter(Path(scratch), [Path(blobs)])


def fill(path):
    with path.open("wb") as file:
        for _ in range(16):
            file.write(bytes(MIB))


def open_many():
    files = []
    try:
        while len(files) < 2000:
            files.append(open("/dev/null", "rb"))
    finally:
        for file in files:
            file.close()


def hog():
    return [bytearray(64 * MIB) for _ in range(16)]


allowed = outcomes({
    "fill a file it was given": lambda: Path(scratch, "given").write_text("x"),
    "read a blob": Path(blobs, "blob").read_bytes,
    "start a thread": thread,
    "read its own statistics": Path("/proc/self/task", str(os.getpid()), "schedstat").read_text,
    "load a library": lambda: ctypes.CDLL("libm.so.6"),
    "raise a signal of its own": lambda: os.kill(os.getpid(), 0),
    "look at its limits": lambda: resource.prlimit(0, resource.RLIMIT_DATA),
    "allocate": lambda: bytearray(64 * MIB),
    "draw a random number": lambda: open("/dev/urandom", "rb").read(8),
})
denied = outcomes({
    "make a file": lambda: Path(scratch, "new").write_text("x"),
    "make a folder": lambda: Path(scratch, "folder").mkdir(),
    "fill the disk through one file": lambda: fill(Path(scratch, "given")),
    "print without end": lambda: [os.write(1, bytes(MIB)) for _ in range(16)],
    "open too many files": open_many,
    "take too much memory": hog,
    "take memory that is not counted": lambda: shared(0x21),
    "take memory by a file of none": lambda: os.memfd_create("x"),
    "take memory by /dev/zero": lambda: shared(0x01, os.open("/dev/zero", os.O_RDWR)),
    "raise its limits": lambda: resource.setrlimit(resource.RLIMIT_DATA, (2**40, 2**40)),
    "limit the agent": lambda: resource.prlimit(int(agent), resource.RLIMIT_NOFILE, (0, 0)),
    "leave its cores": lambda: os.sched_setaffinity(0, range(os.cpu_count())),
    "move the agent to other cores": lambda: os.sched_setaffinity(int(agent), [0]),
    "rank before others": lambda: os.nice(-5),
    "rank the agent behind others": lambda: os.setpriority(os.PRIO_PROCESS, int(agent), 19),
    "write elsewhere": lambda: Path(blobs, "y").write_text("y"),
    "change a blob": lambda: Path(blobs, "blob").open("r+b"),
    "remove a blob": lambda: Path(blobs, "blob").unlink(),
    "link a blob": lambda: os.link(Path(blobs, "blob"), Path(scratch, "link")),
    "truncate the key": lambda: os.truncate(secret, 0),
    "open the key to all": lambda: os.chmod(secret, 0o666),
    "give the key away": lambda: os.chown(secret, 65534, 65534),
    "touch the key": lambda: os.utime(secret),
    "read the key": lambda: Path(secret).read_bytes(),
    "read the key past a path": lambda: os.open("../own.key", os.O_RDONLY, dir_fd=here),
    "list who is there": lambda: os.listdir("/proc"),
    "read the machine's memory": lambda: os.open("/dev/mem", os.O_RDONLY),
    "read the agent's memory": lambda: open(f"/proc/{agent}/mem", "rb"),
    "read the agent's environment": lambda: open(f"/proc/{agent}/environ", "rb").read(),
    "write to its own statistics": lambda: open("/proc/self/oom_score_adj", "w").write("-1000"),
    "list who has accounts": lambda: open("/etc/passwd").read(),
    "signal the agent": lambda: os.kill(int(agent), 0),
    "kill everybody": lambda: os.kill(-1, 0),
    "signal the agent with data": lambda: call("rt_sigqueueinfo", int(agent), 0, None),
    "signal the agent by a file": lambda: __import__("fcntl").fcntl(0, 8, int(agent)),
    "trace the agent": lambda: call("ptrace", 16, int(agent), None, None),
    "write to the agent's memory": lambda: call("process_vm_writev", int(agent), None, 0, None, 0, 0),
    "outlive the agent": lambda: checked(libc.prctl(1, 0, 0, 0, 0)),
    "be dumped": lambda: checked(libc.prctl(4, 1, 0, 0, 0)),
    "open a socket": lambda: socket.create_connection(("127.0.0.1", 9), 1),
    "open a Unix socket": lambda: socket.socket(socket.AF_UNIX),
    "open a pair of sockets": socket.socketpair,
    "open a raw socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "run a program": lambda: os.execv("/bin/true", ["true"]),
    "make a process": os.fork,
    "become another user": lambda: os.setuid(65534),
    "become root again": lambda: os.setresuid(0, 0, 0),
    "gain privileges": lambda: call("capset", b"\\x22\\x05\\x08\\x20" + bytes(4), b"\\xff" * 24),
    "enter a namespace": lambda: call("unshare", 0x10000000),
    "enter the agent's": lambda: call("setns", 0, 0),
    "mount": lambda: call("mount", b"none", b"/mnt", b"tmpfs", 0, None),
    "change the root": lambda: os.chroot("/"),
    "load a program into the kernel": lambda: call("bpf", 0, bytes(128), 128),
    "handle faults": lambda: call("userfaultfd", 0),
    "use rings": lambda: call(425, 8, bytes(256)),
    "use keys": lambda: call("keyctl", 0, -3, 0),
    "count events": lambda: call("perf_event_open", bytes(128), 0, -1, -1, 0),
    "load a module": lambda: call("init_module", bytes(8), 8, b""),
    "set the clock": lambda: call("clock_settime", 0, None),
    "restart the machine": lambda: call("reboot", 0, 0, 0, None),
    "name the machine": lambda: call("sethostname", b"x", 1),
    "use a call that is not known yet": lambda: call(600),
})
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status"))
found = {"layers": layers, "allowed": allowed, "denied": denied, "status": status}
print(json.dumps(found), file=sys.stderr)
"""
)

THREADS = (
    HEAD
    + """
profiler_worker.MAX_THREADS = 50
os.setgid(65534)
os.setuid(65534)
profiler_worker.confine(list(os.sched_getaffinity(0))[:1], 512 * MIB, MIB, os.getppid())
sandbox.enter(Path("/usr"), [])
over = threading.Event()
started = []


def bomb():
    while len(started) < 500:
        one = threading.Thread(target=over.wait)
        one.start()
        started.append(one)


what = outcome(bomb)
over.set()
print(json.dumps({"what": what, "threads": len(started)}), file=sys.stderr)
"""
)


class Cell:
    """A scratch folder, a blob, a secret, and an agent, for a probe to get out to."""

    def __init__(self, folder: Path):
        self.scratch, self.blobs, self.secret = folder / "scratch", folder / "blobs", folder / "own.key"
        self.printed = folder / "printed"
        for place in (self.scratch, self.blobs):
            place.mkdir()
        (self.scratch / "given").touch()
        (self.blobs / "blob").write_bytes(b"kernel")
        self.secret.write_bytes(b"secret")
        self.secret.chmod(0o600)

    def run(self, probe: str) -> str:
        """Return what the probe says on its standard error; what it prints goes to a file, as a kernel's."""
        paths = [self.scratch, self.blobs, self.secret]
        with (
            subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as agent,
            self.printed.open("wb") as printed,
        ):
            try:
                done = subprocess.run(
                    [sys.executable, "-c", probe, *map(str, paths), str(agent.pid)],
                    cwd=self.scratch,
                    stdout=printed,
                    stderr=subprocess.PIPE,
                    text=True,
                    timeout=60,
                )
                assert agent.poll() is None
            finally:
                agent.kill()
        assert done.returncode == 0, done.stderr
        return done.stderr


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Cell:
    if ctypes.CDLL(None).syscall(444, None, 0, 1) < 1 or not NUMBERS:
        pytest.skip("this machine has no Landlock, or an architecture without a filter of system calls")
    return Cell(tmp_path_factory.mktemp("cell"))


@pytest.fixture(scope="module")
def found(cell: Cell) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(cell.run(PROBE))
    return told


def test_sandbox_attack_of_a_kernel_that_wants_more_than_to_compute(
    cell: Cell, found: dict[str, Any]
) -> None:
    assert set(found["layers"]) == {LANDLOCK, SECCOMP}
    assert {what: said for what, said in found["allowed"].items() if said != "done"} == {}
    assert [what for what, said in found["denied"].items() if said == "done"] == []
    assert (cell.blobs / "blob").read_bytes() == b"kernel"
    assert cell.secret.read_bytes() == b"secret"
    assert cell.secret.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in cell.scratch.iterdir()] == ["given"]
    assert (cell.scratch / "given").stat().st_size <= 8 * 2**20
    assert cell.printed.stat().st_size <= 8 * 2**20


def test_sandbox_leaves_no_privileges_to_root_either(found: dict[str, Any]) -> None:
    status = found["status"]
    held = {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
    assert held == dict.fromkeys(held, 0)
    assert int(status["CapBnd"], 16) == 0 or os.getuid() != 0
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"


def test_sandbox_attack_by_threads_without_end(cell: Cell) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become a user who has no other threads")

    found = json.loads(cell.run(THREADS))

    assert found["what"] == "can't start new thread"
    assert found["threads"] <= 50


def test_sandbox_is_entered_by_one_thread_alone(cell: Cell) -> None:
    late = (
        HEAD
        + """
over = threading.Event()
threading.Thread(target=over.wait).start()
try:
    sandbox.enter(Path(scratch), [])
except sandbox.ResonatorError as error:
    print(error, file=sys.stderr)
over.set()
"""
    )
    assert "several threads" in cell.run(late)
