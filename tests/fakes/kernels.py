"""Kernels for tests: what TVM builds, and some that misbehave, written in C."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from resonator.bundle import Manifest, pack
from resonator.messages import BlobRef, KernelPush
from resonator.tensors import TensorSpec

ELEMENTS = 4096
ARGUMENTS = (
    TensorSpec(name="a", shape=(ELEMENTS,), dtype="float32"),
    TensorSpec(name="b", shape=(ELEMENTS,), dtype="float32"),
)
_HEAD = """
#include <stdlib.h>
#include <string.h>
#include <time.h>
int __tvm_ffi_main(void* self, const void* arguments, int count, void* result) {
"""
_BODIES = {
    "crash": "*(volatile int*)0 = 1; return 0; }",
    "endless": "for (volatile long i = 0;; ++i) {} }",
    "slow": "struct timespec t = {0, 30000000}; nanosleep(&t, NULL); return 0; }",
    "hog": "for (;;) { void* p = malloc(1 << 24); if (!p) abort(); memset(p, 1, 1 << 24); } }",
    "exit": "exit(7); }",
}


def build_c(name: str, folder: Path) -> bytes:
    """Compile the misbehaving kernel `name` and return its shared library; skips where there is no gcc."""
    if shutil.which("gcc") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("gcc is not installed")
        pytest.skip("gcc is not installed")
    source, library = folder / f"{name}.c", folder / f"{name}.so"
    source.write_text(_HEAD + _BODIES[name])
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
    return library.read_bytes()


def build_add_one(folder: Path) -> bytes:
    """Have TVM compile b = a + 1 and return the shared library."""
    import tvm
    from tvm import te

    a = te.placeholder((ELEMENTS,), name="a", dtype="float32")
    b = te.compute((ELEMENTS,), lambda i: a[i] + 1.0, name="b")
    function = te.create_prim_func([a, b]).with_attr("global_symbol", "main")
    built = tvm.compile(tvm.IRModule({"main": function}), target=tvm.target.Target({"kind": "llvm"}))
    getattr(built, "mod", built).write_to_file(str(folder / "add.o"))
    subprocess.run(["ld", "-shared", "-o", folder / "add.so", folder / "add.o"], check=True)
    return (folder / "add.so").read_bytes()


def blob(data: bytes, *, inline: bool = True) -> BlobRef:
    """Describe `data`; inline it rides along, otherwise the device pulls it."""
    packed = zlib.compress(data) if inline else None
    return BlobRef(digest=hashlib.sha256(data).hexdigest(), size=len(data), data=packed)


def push(candidate: str, data: bytes, *, epoch: int = 1, job: str = "job", inline: bool = True) -> KernelPush:
    """Push a kernel with the arguments of the test kernels."""
    return KernelPush(
        epoch=epoch, job=job, candidate=candidate, blob=blob(data, inline=inline), arguments=ARGUMENTS
    )


def build_doubler(folder: Path) -> bytes:
    """Have TVM compile a whole model, y = x + x, and return its bundle."""
    import tvm
    from tvm import relax

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((ELEMENTS,), "float32"))
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(relax.op.add(x, x)))
    target = tvm.target.Target({"kind": "llvm"})
    tvm.compile(builder.get(), target).export_library(str(folder / "model.so"))
    manifest = Manifest(
        name="doubler",
        target=str(target),
        inputs=(TensorSpec(name="x", shape=(ELEMENTS,), dtype="float32"),),
        outputs=(TensorSpec(name="y", shape=(ELEMENTS,), dtype="float32"),),
    )
    return pack((folder / "model.so").read_bytes(), manifest)
