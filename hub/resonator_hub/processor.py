"""What schedules of our own need to know of the processor they are made for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from resonator_hub import ir

WORTH_THREADS = 20_000
"""Elements that take one core about as long as it takes to wake the others: a few microseconds."""


@dataclass(frozen=True)
class Processor:
    """A CPU: bits of its vectors, how many registers hold them, and how many cores a kernel may use."""

    bits: int
    registers: int
    cores: int


@cache
def processor_of(target: str) -> Processor | None:
    """Return the processor that `target` (JSON of a TVM target) compiles for; None for anything but a CPU."""
    from tvm.target import codegen

    parsed = ir.parse_target(target)
    if parsed.kind.name != "llvm":
        return None
    cores = int(parsed.attrs.get("num-cores", 1))
    for feature, bits, registers in (("avx512f", 512, 32), ("avx2", 256, 16), ("neon", 128, 32)):
        if codegen.llvm_cpu_has_features(feature, parsed):
            return Processor(bits, registers, cores)
    return Processor(128, 16, cores)
