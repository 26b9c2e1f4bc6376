"""TVM's objects as plain bytes: workloads, traces and targets between the stages.

Every function here imports TVM when it is called, so that the hub's own process never loads it.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from typing import TYPE_CHECKING, Any

from resonator_hub import warm

if TYPE_CHECKING:
    from tvm.ir import IRModule
    from tvm.s_tir import Schedule
    from tvm.target import Target

_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?")
MAX_JSON_BYTES = 64 * 2**20


def parse_target(target: str) -> Target:
    """Return the TVM target that `target`, the JSON of TVM's target dictionary or a tag, describes.

    What TVM needs to schedule for it is loaded with it.
    """
    from tvm.target import Target

    parsed = Target(json.loads(target) if target.lstrip().startswith("{") else target)
    if parsed.kind.name != "llvm":
        warm.load_gpu()
    return parsed


def pack_module(module: IRModule) -> bytes:
    """Return a module as bytes that are equal for modules which differ in the names of variables only.

    The importer numbers variables through a whole model, so equal operators of two models, or of two
    places in one, would otherwise never be known as one workload.
    """
    import tvm

    graph = json.loads(tvm.ir.save_json(module))
    nodes = graph["nodes"]
    variables = [node for node in nodes if node["type"] == "ir.Var"]
    for number, node in enumerate(variables):
        node["data"]["name"] = len(nodes)
        nodes.append({"type": "ffi.String", "data": f"v{number}"})
    # Read and written once more, so that the old names leave no trace in the numbering of the nodes.
    return _deflate(tvm.ir.save_json(tvm.ir.load_json(json.dumps(graph))))


def unpack_module(data: bytes) -> IRModule:
    """Return the module that `pack_module` packed."""
    import tvm

    return tvm.ir.load_json(_inflate(data))


def pack_trace(schedule: Schedule) -> bytes:
    """Return the trace of a schedule as bytes: the decisions alone, without the workload."""
    import tvm

    return _deflate(tvm.ir.save_json(schedule.trace.as_json()))


def apply_trace(trace: bytes, workload: IRModule) -> Schedule:
    """Return a schedule of `workload` with the trace applied; an empty trace applies nothing."""
    from tvm.s_tir import Schedule
    from tvm.s_tir.schedule import Trace

    schedule = Schedule(workload)
    if trace:
        Trace.apply_json_to_schedule(unpack_trace(trace), schedule)
    return schedule


def unpack_trace(trace: bytes) -> Any:
    """Return a packed trace as TVM's JSON: instructions, and decisions by the number of the instruction."""
    import tvm

    return tvm.ir.load_json(_inflate(trace))


def likeness(module: IRModule) -> tuple[str, tuple[int, ...]]:
    """Return what modules that differ in their extents alone have in common, and the extents of all loops.

    The first is a digest of the module's text without its numbers, so that names must have been made equal
    by `pack_module`.
    """
    from tvm.s_tir import Schedule

    text = _NUMBER.sub("#", module.script(show_meta=False))
    schedule = Schedule(module)
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    loops = [schedule.get(loop) for block in blocks for loop in schedule.get_loops(block)]
    extents = [int(loop.extent) for loop in loops]
    return hashlib.sha256(text.encode()).hexdigest(), tuple(extents)


def structural_hash(module: IRModule) -> str:
    """Return TVM's structural hash of a module, 16 hex digits: blind to names, the same in every process."""
    from tvm_ffi import structural_hash

    value: Any = structural_hash(module)
    return f"{int(value) & (2**64 - 1):016x}"


def _deflate(text: str) -> bytes:
    return zlib.compress(text.encode(), 6)


def _inflate(data: bytes) -> str:
    decoder = zlib.decompressobj()
    try:
        text = decoder.decompress(data, MAX_JSON_BYTES)
    except zlib.error as error:
        raise ValueError(f"not compressed JSON: {error}") from None
    if not decoder.eof:
        raise ValueError(f"truncated, or more than {MAX_JSON_BYTES} bytes of JSON")
    return text.decode()
