"""The most floating-point operations a second that this machine was seen to do.

`python peak.py CORE[,CORE]` prints the peak of these cores in operations a second: the better one of a loop
of multiply-adds in registers, built by TVM, and of a large matrix product by ONNX Runtime's own kernels.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LANES = 16
"""Floats of a vector; on machines with narrower ones LLVM splits it."""
CHAINS = 12
"""Independent sums: more than latency times units need, and they still fit into the registers."""
STEPS = 1_000_000
SIZE = 1024
SPAN_S = 1.5
"""How long each is repeated, for an undisturbed run to be among them."""


def measured(cores: tuple[int, ...]) -> float:
    """Return the peak of `cores` in operations a second, measured in a process pinned there."""
    names = ",".join(map(str, cores))
    environment = {**os.environ, "TVM_NUM_THREADS": str(len(cores)), "TVM_BIND_THREADS": "0"}
    command = ["taskset", "-c", names, sys.executable, str(Path(__file__)), names]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return float(done.stdout.split()[-1])


def main(threads: int) -> None:
    fused, product = _multiply_adds(threads), _product(threads)
    print(f"multiply-adds {fused / 1e9:.1f}, matrix product {product / 1e9:.1f} GFLOP/s", file=sys.stderr)
    print(max(fused, product))


def _multiply_adds(threads: int) -> float:
    import tvm
    from tvm.target import codegen

    target = tvm.target.Target({"kind": "llvm", "mcpu": str(codegen.llvm_get_system_cpu())})
    kernel = tvm.compile(_loop(threads), target=target)["main"]
    sums = tvm.runtime.tensor(np.zeros((threads, CHAINS, LANES), np.float32))
    factor = tvm.runtime.tensor(np.full((1,), 0.5, np.float32))
    return 2.0 * threads * CHAINS * LANES * STEPS / _fastest(lambda: kernel(sums, factor))


def _loop(threads: int) -> Any:
    """Return x = x * factor + factor, over and over, on every thread a few vectors of its own."""
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def main(
        sums: T.Buffer((threads, CHAINS, LANES), "float32"),  # type: ignore[valid-type]
        factor: T.Buffer((1,), "float32"),  # type: ignore[valid-type]
    ) -> None:
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        for thread in T.parallel(threads):
            for _ in range(STEPS):
                for chain in T.unroll(CHAINS):
                    for lane in T.vectorized(LANES):
                        sums[thread, chain, lane] = sums[thread, chain, lane] * factor[0] + factor[0]

    return main


def _product(threads: int) -> float:
    import onnxruntime
    from onnx import TensorProto, helper

    shape = [SIZE, SIZE]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "abc"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])], "product", values[:2], values[2:]
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    inputs = {name: np.random.default_rng(0).random(shape, np.float32) for name in "ab"}
    return 2.0 * SIZE**3 / _fastest(lambda: session.run(None, inputs))


def _fastest(run: Callable[[], object]) -> float:
    """Return the seconds of the fastest run."""
    run()
    fastest, end = math.inf, time.perf_counter() + SPAN_S
    while (began := time.perf_counter()) < end:
        run()
        fastest = min(fastest, time.perf_counter() - began)
    return fastest


if __name__ == "__main__":
    main(len(sys.argv[1].split(",")))
