"""Kernels of mixed speed, built once: for benchmarks in which building is not what is measured.

`python mixed_kernels.py FOLDER COUNT` writes the kernels of a small convolution into FOLDER, as Resonator
builds them and, as `0.tar`, `1.tar`, ..., as TVM's LocalBuilder does. Takes 25 s and 0.5 s a kernel.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgpack
from fleets import HUB_CORE, on, target
from operators import convolution
from pydantic import TypeAdapter

from resonator_hub.artifacts import Compiled
from resonator_hub.build import Kernel

_FILE = "built.msgpack"


@dataclass(frozen=True)
class Built:
    """The kernels, the untuned model that has their operator, what it must answer, and some cost model."""

    kernels: tuple[Kernel, ...]
    model: Compiled
    answers: bytes
    cost_model: bytes


def make(folder: Path, count: int) -> None:
    """Write `count` kernels into an empty folder, in a process of its own: TVM is not wanted in this one."""
    subprocess.run(on(HUB_CORE, [sys.executable, __file__, str(folder), str(count)]), check=True)


def read(folder: Path) -> Built:
    """Read what `make` has written."""
    return TypeAdapter(Built).validate_python(msgpack.unpackb((folder / _FILE).read_bytes()))


def model() -> bytes:
    """Return the convolution as an ONNX file: about 0.1 ms on a core at best."""
    return convolution(64, 64, 1, pixels=28)


def _write(folder: Path, count: int) -> None:
    from tvm.s_tir.meta_schedule.builder.local_builder import default_build, default_export

    from resonator_hub import ir
    from resonator_hub.artifacts import answers, compile_model
    from resonator_hub.build import build
    from resonator_hub.cost_model import Sample, update
    from resonator_hub.frontends.onnx import extract
    from resonator_hub.search.proposal import select

    compiled_for = target()
    workload = extract(model(), {}, compiled_for).tasks[0].module
    kernels: list[Kernel] = []
    proposals = select(workload, compiled_for, (), None, 2 * count, 0, frozenset())
    for proposal in proposals:
        kernel = build(workload, proposal.trace, compiled_for)
        if isinstance(kernel, Kernel) and len(kernels) < count:
            scheduled = ir.apply_trace(proposal.trace, ir.unpack_module(workload)).mod
            archive = default_export(default_build(scheduled, ir.parse_target(compiled_for), None))
            shutil.move(archive, folder / f"{len(kernels)}.tar")
            kernels.append(kernel)
    assert len(kernels) == count, f"only {len(kernels)} candidates can be built"
    samples = [Sample(one.features, 1e-3 * rank, "") for rank, one in enumerate(proposals, start=1)]
    built = Built(
        tuple(kernels),
        compile_model(model(), {}, compiled_for, ()),
        answers(model(), {}, 0),
        update(samples, None),
    )
    (folder / _FILE).write_bytes(msgpack.packb(TypeAdapter(Built).dump_python(built)))


if __name__ == "__main__":
    _write(Path(sys.argv[1]), int(sys.argv[2]))
