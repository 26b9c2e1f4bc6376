"""The demo's parts: whose core is whose, the figures, the yardstick, and processes that end with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from rich.console import Console

from resonator.errors import InputInvalid
from resonator.messages import JobState, JobStatus, Latency
from resonator_hub.demo import demo
from resonator_hub.demo.children import ChildDied, Children, pinned
from resonator_hub.demo.plan import Plan, default_model, plan
from resonator_hub.demo.report import Report, make_report, picture
from resonator_hub.demo.weights import with_weights
from resonator_hub.demo.yardstick import measure
from resonator_hub.timeline import Span


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        ({0}, Plan((0,), (0,))),
        ({0, 1}, Plan((0,), (1,))),
        ({4, 7, 9}, Plan((4, 7), (9,))),
        ({0, 1, 2, 3}, Plan((0, 1), (2, 3))),
        (set(range(16)), Plan(tuple(range(14)), (14, 15))),
    ],
)
def test_agents_get_the_last_cores_and_the_hub_the_others(cores: set[int], expected: Plan) -> None:
    assert plan(cores) == expected


def demo_at(output: Path, state: Path | None = None) -> None:
    demo(trials=1, model=default_model(), state=state, output=output)


def test_a_demo_that_could_not_keep_its_results_does_not_begin(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputInvalid, match=r"nothing can be written to .*file: "):
        demo_at(tmp_path / "file/b.tar")
    with pytest.raises(InputInvalid, match=r"nothing can be written to .*file: "):
        demo_at(tmp_path / "b.tar", tmp_path / "file")
    with pytest.raises(InputInvalid, match="is a folder; name a file"):
        demo_at(tmp_path)


def test_the_model_comes_with_the_onnx_package() -> None:
    assert default_model().is_file()


def run_onnxruntime(model: bytes, seed: int) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    data = np.random.default_rng(seed).standard_normal((1, 3, 224, 224)).astype("float32")
    (output,) = session.run(None, {session.get_inputs()[0].name: data})
    return cast("NDArray[np.float32]", output.ravel())


def test_with_weights_the_output_depends_on_the_input() -> None:
    model = with_weights(default_model())

    first, second = run_onnxruntime(model, 1), run_onnxruntime(model, 2)

    assert first.max() > 2 * first.min()
    assert not np.allclose(first, second, rtol=1e-3)
    assert with_weights(default_model()) == model


def report(tmp_path: Path) -> Report:
    def latency(median: float) -> Latency:
        return Latency(median=median, low=median, high=median, device="demo/core1")

    status = JobStatus(
        job="net-1",
        name="net",
        state=JobState.SUCCEEDED,
        trials=60,
        failed_trials=2,
        elapsed=120.0,
        untuned=latency(0.04),
        tuned=latency(0.01),
    )
    spans = [
        Span("compute 0", "build", 0.0, 10.0),
        Span("demo/core1", "measure the model", 0.0, 5.0),
        Span("demo/core1", "measure a kernel", 10.0, 14.0),
        Span("demo/core1", "measure a kernel", 15.0, 20.0),
    ]
    return make_report(
        model=Path("net.onnx"),
        status=status,
        timeline=spans,
        cores="core 1",
        onnxruntime_s=0.02,
        wall_s=150.0,
        bundle=tmp_path / "b.tar",
        picture=tmp_path / "b.svg",
    )


def test_the_figures_are_those_of_the_job(tmp_path: Path) -> None:
    figures = report(tmp_path).to_json()

    assert figures["trials_per_minute"] == pytest.approx(30.0)
    assert figures["busy"] == {"demo/core1": pytest.approx(0.9)}
    assert (figures["untuned_s"], figures["tuned_s"], figures["onnxruntime_s"]) == (0.04, 0.01, 0.02)


def test_the_table_compares_the_three_latencies(tmp_path: Path) -> None:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(picture(report(tmp_path)))

    lines = {line.split()[0]: line.split() for line in capture.get().splitlines() if line.strip()}
    assert lines["tuned"] == ["tuned", "10", "ms", "4.00", "x", "2.00", "x"]
    assert lines["ONNX"] == ["ONNX", "Runtime", "20", "ms", "2.00", "x", "1.00", "x"]
    assert lines["demo/core1"][-1] == "90%"


def test_a_pinned_thread_is_free_again_afterwards() -> None:
    before = os.sched_getaffinity(0)
    with pinned([min(before)]):
        inside = os.sched_getaffinity(0)

    assert (inside, os.sched_getaffinity(0)) == ({min(before)}, before)


async def test_children_that_end_before_their_time_are_noticed_with_their_last_words(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        await children.start("hub", ["jobs", "--broker", "http://nowhere"], sorted(os.sched_getaffinity(0)))
        await children._running[0]._process.wait()

        with pytest.raises(ChildDied, match=r"the demo's hub ended with exit code 2.*\n.*is not an address"):
            children.check()


async def test_children_are_stopped_when_the_demo_ends(tmp_path: Path) -> None:
    arguments = ["watch", "net-1", "--broker", "mqtt://127.0.0.1:9"]
    async with Children(tmp_path) as children:
        await children.start("watcher", arguments, sorted(os.sched_getaffinity(0)))
        process = children._running[0]._process
        children.check()

    assert process.returncode is not None


def test_onnx_runtime_is_measured_on_the_given_core() -> None:
    before = os.sched_getaffinity(0)
    try:
        latencies = measure(str(default_model()), {min(before)})
    finally:
        os.sched_setaffinity(0, before)

    assert len(latencies) >= 10
    assert all(0 < latency < 10 for latency in latencies)
