"""PURE: what no box can have measured, whatever it says. A lie within these bounds is not recognised here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median

from resonator.jobspec import Measure
from resonator.messages import Identity, KernelResult
from resonator.tensors import TensorSpec
from resonator_hub.scheduler.commands import Profile

CLOCK_HZ = 7e9
"""Above what any processor is sold with: the fastest so far turbo to 6.2 GHz."""
PER_CYCLE = {4: 128.0, 2: 1024.0, 1: 2048.0}
"""Operations of a core in a cycle, by the bytes of the narrowest number: two AVX-512 units make 64 of single
precision (Intel 64 and IA-32 Architectures Optimization Reference Manual), which is doubled here; Intel's AMX
makes 1024 of half precision and 2048 of bytes (the same)."""
OF_A_GPU = 4e16
"""Operations of a GPU in a second: twice what the fastest so far does (NVIDIA B200, of 4 bits, sparse)."""
SKIPPED = 4.0
"""So many times fewer operations may suffice: three in four of a transposed convolution of stride 2 are
multiplications by zero, which a compiler may find out, and Winograd's method saves as much."""
CLOCKS, GRANULARITY_S = 1.05, 1e-3
"""How far two clocks of one box may be apart."""
PARTS = 20
"""Into how many means an agent divides a repeat, at most."""


def objection(
    result: KernelResult,
    command: Profile,
    measure: Measure,
    box: Identity | None,
    arguments: Callable[[], Iterable[TensorSpec]],
) -> str | None:
    """Return why a result with latencies cannot be true, or None; `box` is what the device says it is.

    The kernel's `arguments` are asked for only where it matters what numbers it computes with.
    """
    return (
        _in_number(result, command, measure)
        or _in_time(result)
        or (_in_speed(result, command, box, arguments) if box is not None and command.flops else None)
    )


def _in_number(result: KernelResult, command: Profile, measure: Measure) -> str | None:
    if result.raced and command.race_s is None:
        return "raced: there was nothing to race against"
    most = 1 if result.raced else measure.repeat if command.model else measure.repeat * PARTS
    count = len(result.latencies)
    return f"latencies: {count} of them, asked for were at most {most}" if count > most else None


def _in_time(result: KernelResult) -> str | None:
    least_s = sum(result.latencies)  # each is a mean over one run at the least
    if least_s <= result.device_time * CLOCKS + GRANULARITY_S:
        return None
    return f"latencies: {least_s:.3g} s in all, on which the device spent {result.device_time:.3g} s"


def _in_speed(
    result: KernelResult, command: Profile, box: Identity, arguments: Callable[[], Iterable[TensorSpec]]
) -> str | None:
    latency_s = median(result.latencies)
    speed = command.flops / latency_s
    if command.target_kind == "cuda":
        most = OF_A_GPU
    else:
        cores = min(len(set(box.cores_used)), box.cores)
        most = cores * CLOCK_HZ * PER_CYCLE[4] * SKIPPED
        if speed > most:
            most *= PER_CYCLE[_narrowest(command, arguments)] / PER_CYCLE[4]
    if speed <= most:
        return None
    return (
        f"latencies: {latency_s:.3g} s for {command.flops:.3g} operations, {speed / most:.3g} times the most"
    )


def _narrowest(command: Profile, arguments: Callable[[], Iterable[TensorSpec]]) -> int:
    """Return how many bytes the narrowest number has: 1, 2 or 4; of a whole model nobody knows."""
    if command.model:
        return 1
    bits = min((_bits(tensor.dtype) for tensor in arguments()), default=32)
    return 1 if bits <= 8 else 2 if bits <= 16 else 4


def _bits(dtype: str) -> int:
    digits = "".join(sign for sign in dtype if sign.isdecimal())
    return int(digits) if digits else 8
