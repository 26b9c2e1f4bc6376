"""Best records become a compiled model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resonator.tensors import TensorSpec
from resonator_hub import ir
from resonator_hub.build.link import link
from resonator_hub.calls import once
from resonator_hub.frontends import relax as graphs
from resonator_hub.frontends.onnx import prepare

if TYPE_CHECKING:
    from tvm.ir import IRModule
    from tvm.target import Target


@dataclass(frozen=True)
class Best:
    """The best known candidate of a workload."""

    workload: bytes
    trace: bytes


@dataclass(frozen=True)
class Compiled:
    """A model as one shared library for the TVM runtime alone, its weights inside."""

    library: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tuned_tasks: int
    """How many distinct operators of the model run by a record in `best`."""


@once
def compile_model(
    model: bytes, shapes: Mapping[str, Sequence[int]], target: str, best: Sequence[Best]
) -> Compiled:
    """Return `model` compiled for `target`, its operators by their best records where there are any.

    Weights are brought into the layouts that the records ask for here, not on the device. Without
    records this is the untuned baseline: right and slow. Raises `ModelInvalid` and `LinkerMissing`.
    """
    import tvm

    compiled_for = ir.parse_target(target)
    prepared, inputs = prepare(model, shapes)
    module = graphs.import_graph(prepared, target)
    outputs = graphs.output_specs(module, [value.name for value in prepared.graph.output])
    wanted = {task.digest for task in graphs.tasks(module, target)}
    used = [record for record in best if graphs.digest(record.workload) in wanted]
    scheduled = _apply(module, compiled_for, used)
    with compiled_for, tvm.transform.PassContext(opt_level=3):
        executable = tvm.compile(scheduled, target=compiled_for)
    return Compiled(
        library=_export(executable, target), inputs=inputs, outputs=outputs, tuned_tasks=len(used)
    )


def _apply(module: IRModule, target: Target, best: Sequence[Best]) -> IRModule:
    """Schedule the operators by their records, and bring the weights into the layouts these ask for."""
    import tvm
    from tvm.relax import transform

    fold_weights = [
        transform.SplitLayoutRewritePreproc(),
        transform.LiftTransformParams(),
        transform.FoldConstant(),
    ]
    with target, _database(target, best), tvm.transform.PassContext(opt_level=3):
        apply_records = [transform.MetaScheduleApplyDatabase()] if best else []
        return tvm.transform.Sequential([*apply_records, *fold_weights])(module)


def _database(target: Target, best: Sequence[Best]) -> Any:
    from tvm.s_tir import meta_schedule as ms

    database = ms.database.MemoryDatabase()
    for record in best:
        workload = ir.unpack_module(record.workload)
        trace = ir.apply_trace(record.trace, workload).trace
        entry = database.commit_workload(workload)
        # One record for each workload: the latency only has to be there.
        database.commit_tuning_record(ms.database.TuningRecord(trace, entry, [1.0], target, None))
    return database


def _export(executable: Any, target: str) -> bytes:
    def linked(output: str, objects: Sequence[str], **_: Any) -> None:
        link(Path(output), [Path(item) for item in objects], target)

    linked.object_format = "o"  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(prefix="resonator-") as folder:
        path = Path(folder, "model.so")
        executable.export_library(str(path), fcompile=linked, workspace_dir=folder)
        return path.read_bytes()
