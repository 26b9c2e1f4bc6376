"""The peer, as its users run it: TVM's MetaSchedule tuning one operator over TVM's own RPC tracker.

`python peer_tvm.py OPERATOR TRIALS TARGET TRACKER_PORT SEED` prints JSON: `curve`, seconds since the start
and best latency in seconds after every batch; `stages`, seconds by TVM's own profiler; and the winner as
`workload` and `trace`, base64 of what `resonator_hub.build` takes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from base64 import b64encode
from typing import Any

BEGAN = time.monotonic()

from operators import model  # noqa: E402
from tvm.ir import IRModule  # noqa: E402
from tvm.ir.utils import derived_object  # noqa: E402
from tvm.s_tir import Schedule  # noqa: E402
from tvm.s_tir import meta_schedule as ms  # noqa: E402

from resonator_hub import ir  # noqa: E402
from resonator_hub.frontends.onnx import extract  # noqa: E402


@derived_object
class Curve(ms.measure_callback.PyMeasureCallback):
    """Notes the best latency after every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.points: list[tuple[float, float]] = []
        self.measured = 0
        self._best = float("inf")

    def apply(self, scheduler, task, candidates, builds, runs) -> None:  # type: ignore[no-untyped-def]
        """Take a batch's results."""
        for run in runs:
            if run.run_secs:
                self.measured += 1
                seconds = [float(one) for one in run.run_secs]
                self._best = min(self._best, sum(seconds) / len(seconds))
        self.points.append((time.monotonic() - BEGAN, self._best))


def main(operator: str, trials: int, target: str, port: int, seed: int) -> None:
    work = extract(model(operator), {}, target).tasks[0]
    module = ir.unpack_module(work.module)
    rpc = ms.runner.RPCConfig(tracker_host="127.0.0.1", tracker_port=port, tracker_key="edge")
    timing = ms.runner.EvaluatorConfig(number=3, repeat=1, min_repeat_ms=100)
    curve = Curve()
    with tempfile.TemporaryDirectory() as folder, ms.Profiler() as profiler:
        database = ms.tune_tir(
            module,
            ir.parse_target(target),
            folder,
            max_trials_global=trials,
            num_trials_per_iter=32,
            # Its default of a worker for each core times out on one core, while all of them import.
            builder=ms.builder.LocalBuilder(max_workers=1),
            runner=ms.runner.RPCRunner(rpc, timing, max_workers=1),
            measure_callbacks=[*ms.measure_callback.MeasureCallback.create("default"), curve],
            seed=seed,
        )
        ended_s = time.monotonic() - BEGAN
    outcome = {
        "curve": curve.points,
        "ended_s": ended_s,
        "trials": curve.measured,
        "stages": {name: float(seconds) for name, seconds in profiler.get().items()},
        "workload": b64encode(work.module).decode(),
        "trace": b64encode(best_trace(database, module)).decode(),
        "target": target,
    }
    print(json.dumps(outcome))


def best_trace(database: Any, module: IRModule) -> bytes:
    """Return the trace of the fastest record, as `resonator_hub.build` takes it."""
    record = database.get_top_k(database.commit_workload(module), 1)[0]
    schedule = Schedule(module)
    record.trace.apply_to_schedule(schedule, remove_postproc=False)
    return ir.pack_trace(schedule)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
