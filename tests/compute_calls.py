"""What the tests of the compute pool have its workers do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

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


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


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


def folder() -> str:
    """Return where this worker may write; a pipe there is the way out that it has."""
    return os.getcwd()


def announce() -> None:
    with open("started", "w") as fifo:
        fifo.write(str(os.getpid()))
    spin()
