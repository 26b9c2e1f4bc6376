"""What the tests of the compute pool have its workers do."""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from resonator.failures import Failure
from resonator_hub.build.kernel import Kernel, build
from resonator_hub.frontends import ModelInvalid


def process_id() -> int:
    return os.getpid()


def add(left: int, right: int) -> int:
    return left + right


def spin() -> None:
    while True:
        pass


def burn(seconds: float) -> None:
    """Take so much processor time here, and as much again in a process of its own."""
    child = f"import time\nwhile time.process_time() < {seconds}: pass"
    subprocess.run([sys.executable, "-c", child], check=True)
    began = time.process_time()
    while time.process_time() < began + seconds:
        pass


def burn_in_vain(seconds: float) -> None:
    burn(seconds)
    raise ModelInvalid("No.")


def parent() -> int:
    return os.getppid()


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def die_in(place: str) -> str:
    if folder() == place:
        os.kill(os.getpid(), signal.SIGKILL)
    return folder()


def hoard() -> int:
    return len(bytearray(64 * 2**30))


def refuse() -> None:
    raise ModelInvalid("No.")


def fail_inside_tvm() -> None:
    import tvm

    raise tvm.error.OpNotImplemented("no such operator")


def loaded_modules() -> tuple[bool, bool]:
    return "tvm.s_tir.tensor_intrin" in sys.modules, "xgboost" in sys.modules


def gpu_intrinsics_by_target() -> tuple[bool, bool]:
    """Return whether TVM can tensorize for a GPU: before a target asks for it, and after."""
    from resonator_hub import ir

    before = "tvm.s_tir.tensor_intrin.cuda" in sys.modules
    ir.parse_target("nvidia/jetson-orin-nano")
    from tvm.s_tir import TensorIntrin

    return before, TensorIntrin.get("mma_ldmatrix_f16_a", allow_missing=True) is not None


def cores_allowed() -> set[int]:
    return os.sched_getaffinity(0)


def ignores_interrupts() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def variables() -> list[str]:
    return list(os.environ)


def folder() -> str:
    """Return where this worker may write; a pipe there is the way out that it has."""
    return os.getcwd()


def announce() -> None:
    with open("started", "w") as fifo:
        fifo.write(str(os.getpid()))
    spin()


def attempts(secret: str, outside: str, hub: int) -> dict[str, str]:
    """Return what came of everything that a model might try."""

    def outcome(attempt: Callable[[], object]) -> str:
        try:
            attempt()
        except OSError as error:
            return os.strerror(error.errno) if error.errno else str(error)
        return "done"

    return {
        what: outcome(attempt)
        for what, attempt in {
            "write to its folder": lambda: Path("x").write_text("x"),
            "make a folder in it": lambda: shutil.rmtree(tempfile.mkdtemp()),
            "start a linker": lambda: subprocess.run(["ld", "--version"], check=True, capture_output=True),
            "start another program": lambda: subprocess.run(["true"], check=True),
            "start a program of its own": _start_own,
            "copy itself": _fork,
            "read a secret": Path(secret).read_bytes,
            "list a folder": lambda: os.listdir(os.path.dirname(secret)),
            "write elsewhere": lambda: Path(outside, "x").write_text("x"),
            "read the hub's memory": lambda: Path(f"/proc/{hub}/environ").read_bytes(),
            "signal the hub": lambda: os.kill(hub, 0),
            "limit the hub": lambda: resource.prlimit(hub, resource.RLIMIT_CORE, (0, 0)),
            "open a socket": lambda: socket.create_connection(("127.0.0.1", 9), 1),
            "open a Unix socket": lambda: socket.socket(socket.AF_UNIX),
            "leave its group": os.setsid,
        }.items()
    }


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _start_own() -> None:
    own = Path("own")
    shutil.copyfile(sys.executable, own)
    os.execv(own, ["own", "-c", ""])


def announce_and_build(workload: bytes, trace: bytes, target: str) -> Kernel | Failure:
    """Build, and tell whoever reads the pipe here that it has begun, and in which process."""
    with open("started", "w") as fifo:
        fifo.write(str(os.getpid()))
    return build(workload, trace, target)


def reverse(data: bytes) -> bytes:
    return data[::-1]


def leave_behind() -> None:
    """Start a program that never ends, tell of it, and crash when told to."""
    left = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    with open("started", "w") as fifo:
        fifo.write(str(left.pid))
    Path("go").read_text()
    crash()


def fill_disk() -> None:
    with open("big", "wb") as file:
        file.truncate(2**44)


def scribble(sizes: bytes) -> int:
    """Write to the hub behind the back of whoever answers, as a worker that was taken over might."""
    for descriptor in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                os.write(descriptor, sizes)
    return 0


def layers() -> list[str]:
    """Return the layers of the sandbox that this process has, as the kernel tells."""
    status = Path("/proc/self/status").read_text()
    found = ["seccomp"] if "\nSeccomp:\t2\n" in status else []
    try:
        os.listdir("/")
    except PermissionError:
        found.append("landlock")
    return found


def share() -> None:
    """Take memory that would count as nobody's."""
    held = [mmap.mmap(-1, 2**28) for _ in range(64)]
    raise RuntimeError(f"{len(held)} times 256 MiB")
