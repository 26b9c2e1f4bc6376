"""Select, build, update and compile on real operators, and all of them one after the other."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest

import kernel_timing
import resonator
from resonator import bundle
from resonator.accuracy import worst_error
from resonator.failures import Failure, FailureKind
from resonator_hub import cost_model, warm
from resonator_hub.artifacts import Best, compile_model, pack_arrays, reference, unpack_arrays
from resonator_hub.build import Kernel, LinkerMissing, build
from resonator_hub.build.link import link
from resonator_hub.cost_model import Sample
from resonator_hub.frontends import ModelInvalid, Workload
from resonator_hub.frontends.onnx import extract
from resonator_hub.search import Proposal, Tried, select
from small_models import perceptron, residual_net

BATCH = 8


@pytest.fixture(scope="module")
def target() -> str:
    warm.load()
    return kernel_timing.target()


@pytest.fixture(scope="module")
def task(target: str) -> Workload:
    return extract(perceptron(), {}, target).tasks[0]


@pytest.fixture(scope="module")
def measured(task: Workload, target: str) -> list[tuple[Proposal, Kernel, float]]:
    """Two batches of candidates, chosen at random, with their kernels and latencies."""
    proposals: list[Proposal] = []
    for seed in range(2):
        seen = frozenset(proposal.digest for proposal in proposals)
        proposals += select(task.module, target, [], None, 2 * BATCH, seed, seen)
    kernels = [build(task.module, proposal.trace, target) for proposal in proposals]
    assert all(isinstance(kernel, Kernel) for kernel in kernels)
    return [
        (proposal, kernel, kernel_timing.latency_s(kernel))
        for proposal, kernel in zip(proposals, kernels, strict=True)
        if isinstance(kernel, Kernel)
    ]


def samples_of(measured: list[tuple[Proposal, Kernel, float]], group: str) -> list[Sample]:
    return [Sample(proposal.features, latency, group) for proposal, _, latency in measured]


def test_select_proposes_distinct_candidates_and_never_what_was_seen(
    measured: list[tuple[Proposal, Kernel, float]],
) -> None:
    digests = [proposal.digest for proposal, _, _ in measured]
    assert len(digests) == 4 * BATCH
    assert len(set(digests)) == len(digests)
    assert all(proposal.predicted is None for proposal, _, _ in measured)


def test_select_is_deterministic_and_the_seed_matters(task: Workload, target: str) -> None:
    first = select(task.module, target, [], None, BATCH, 5, frozenset())
    assert select(task.module, target, [], None, BATCH, 5, frozenset()) == first
    assert select(task.module, target, [], None, BATCH, 6, frozenset()) != first


def test_select_with_a_model_and_records_ranks_what_it_proposes(
    task: Workload, target: str, measured: list[tuple[Proposal, Kernel, float]]
) -> None:
    model = cost_model.update(samples_of(measured, task.digest), None)
    tried = [Tried(proposal.trace, latency) for proposal, _, latency in measured]
    seen = frozenset(proposal.digest for proposal, _, _ in measured)
    proposals = select(task.module, target, tried, model, BATCH, 1, seen)
    assert proposals
    assert not seen & {proposal.digest for proposal in proposals}
    scores = [proposal.predicted for proposal in proposals if proposal.predicted is not None]
    assert len(scores) == len(proposals)
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("count", [1, 4, BATCH, 3 * BATCH])
def test_what_was_good_for_a_similar_operator_is_tried_first_and_never_makes_a_round_too_large(
    task: Workload, target: str, measured: list[tuple[Proposal, Kernel, float]], count: int
) -> None:
    hints = [proposal.trace for proposal, _, _ in measured[:BATCH]]
    model = cost_model.update(samples_of(measured, task.digest), None)
    proposals = select(task.module, target, [], model, count, 1, frozenset(), hints)
    assert len({proposal.digest for proposal in proposals}) == len(proposals) <= count
    handed_on = proposals[: min(BATCH, math.ceil(0.8 * count))]
    assert [one.trace for one in handed_on] == hints[: len(handed_on)]  # the operator itself is most similar


def test_a_space_that_is_exhausted_gives_fewer_and_then_none(target: str) -> None:
    tiny = extract(residual_net(), {}, target).tasks[-1]
    seen: set[str] = set()
    for seed in range(6):
        proposals = select(tiny.module, target, [], None, 64, seed, frozenset(seen))
        seen.update(proposal.digest for proposal in proposals)
        if not proposals:
            break
    assert len(seen) < 6 * 64


def test_a_kernel_takes_the_arguments_of_its_workload_whatever_layout_it_chose(
    task: Workload, target: str, measured: list[tuple[Proposal, Kernel, float]]
) -> None:
    plain = build(task.module, b"", target)
    assert isinstance(plain, Kernel)
    for _, kernel, _ in measured[:4]:
        sizes = [np.prod(spec.shape) for spec in kernel.arguments]
        assert sizes == [np.prod(spec.shape) for spec in plain.arguments]
        assert kernel.arguments[-1] == plain.arguments[-1]
        # Not compared by value: a kernel that chose a layout for its weight reads the same bytes in
        # another order. The whole models below are, where the weights have been brought into it.
        assert np.isfinite(kernel_timing.run(kernel)[-1]).all()


def test_a_trace_that_does_not_belong_to_the_workload_is_a_build_error(
    target: str, measured: list[tuple[Proposal, Kernel, float]]
) -> None:
    other = extract(residual_net(), {}, target).tasks[0]
    failure = build(other.module, measured[0][0].trace, target)
    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.BUILD_ERROR
    assert failure.detail


def test_damaged_traces_are_build_errors(task: Workload, target: str) -> None:
    failure = build(task.module, b"not a trace", target)
    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.BUILD_ERROR


def test_a_target_that_has_no_linker_here_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    foreign = json.dumps({"kind": "llvm", "mtriple": "aarch64-linux-gnu"})
    with pytest.raises(LinkerMissing, match="No linker for aarch64-linux-gnu is installed here; install lld"):
        link(tmp_path / "k.so", [tmp_path / "k.o"], foreign)


def test_the_cost_model_ranks_held_out_candidates_better_than_chance(
    task: Workload, measured: list[tuple[Proposal, Kernel, float]]
) -> None:
    # The size of its code stands in for a kernel's latency: it depends on the schedule, and not on the day.
    samples = [
        Sample(proposal.features, float(len(kernel.library)), task.digest) for proposal, kernel, _ in measured
    ]
    known, held_out = samples[::2], samples[1::2]
    predicted = cost_model.predict(cost_model.update(known, None), [one.features for one in held_out])
    assert pairs_in_order(predicted, [one.latency_s for one in held_out]) > 0.6


def pairs_in_order(scores: list[float], latencies: list[float]) -> float:
    """Return the share of the pairs in which the faster one has the higher score."""
    verdicts = [
        scores[fast] > scores[slow]
        for fast in range(len(scores))
        for slow in range(len(scores))
        if latencies[fast] < latencies[slow]
    ]
    return sum(verdicts) / len(verdicts)


def test_a_residual_net_is_tuned_bundled_and_right(target: str, tmp_path: Path) -> None:
    data = residual_net()
    extraction = extract(data, {}, target)
    heaviest = extraction.tasks[0]

    tried: list[Tried] = []
    seen: frozenset[str] = frozenset()
    model: bytes | None = None
    for seed in range(2):
        proposals = select(heaviest.module, target, tried, model, 4, seed, seen)
        samples = []
        for proposal in proposals:
            kernel = build(heaviest.module, proposal.trace, target)
            assert isinstance(kernel, Kernel)
            latency = kernel_timing.latency_s(kernel)
            tried.append(Tried(proposal.trace, latency))
            samples.append(Sample(proposal.features, latency, heaviest.digest))
        model = cost_model.update(samples, model)
        seen |= {proposal.digest for proposal in proposals}
    best = min(tried, key=lambda record: record.latency_s)

    compiled = compile_model(data, {}, target, [Best(heaviest.module, best.trace)])
    assert compiled.tuned_tasks == 1
    manifest = bundle.Manifest(
        name="residual", target=target, inputs=compiled.inputs, outputs=compiled.outputs
    )
    path = tmp_path / "residual.tar"
    path.write_bytes(bundle.pack(compiled.library, manifest))
    loaded = resonator.load(path)
    expected = reference(data, {}, seed=1)
    outputs = loaded(unpack_arrays(expected.inputs))
    assert worst_error(outputs, unpack_arrays(expected.outputs)) < 1e-3
    assert len(loaded.time(repeat=3)) == 3


def test_every_task_tuned_with_weights_in_new_layouts_is_right(target: str) -> None:
    data = perceptron()
    tasks = extract(data, {}, target).tasks
    best = [
        Best(task.module, select(task.module, target, [], None, 4, 0, frozenset())[0].trace) for task in tasks
    ]
    assert_right(data, target, best, tuned=len(tasks))


def test_the_untuned_model_is_right_and_foreign_records_are_ignored(
    target: str, measured: list[tuple[Proposal, Kernel, float]], task: Workload
) -> None:
    assert_right(residual_net(legacy=True), target, [], tuned=0)
    assert_right(residual_net(), target, [Best(task.module, measured[0][0].trace)], tuned=0)


def opened(manifest: bundle.Manifest, library: bytes) -> bundle.Model:
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(library)
        file.flush()
        return bundle.Model(manifest, Path(file.name))


def assert_right(data: bytes, target: str, best: list[Best], *, tuned: int) -> None:
    compiled = compile_model(data, {}, target, best)
    assert compiled.tuned_tasks == tuned
    manifest = bundle.Manifest(name="m", target=target, inputs=compiled.inputs, outputs=compiled.outputs)
    expected = reference(data, {}, seed=2)
    outputs = opened(manifest, compiled.library)(unpack_arrays(expected.inputs))
    assert worst_error(outputs, unpack_arrays(expected.outputs)) < 1e-3


def test_a_loaded_model_says_what_it_takes(target: str) -> None:
    compiled = compile_model(perceptron(), {}, target, [])
    manifest = bundle.Manifest(name="m", target=target, inputs=compiled.inputs, outputs=compiled.outputs)
    model = opened(manifest, compiled.library)
    good = np.zeros((32, 64), np.float32)
    with pytest.raises(bundle.TensorsInvalid, match="has no input 'z'; its inputs are: x"):
        model({"x": good, "z": good})
    with pytest.raises(bundle.TensorsInvalid, match=r"Input 'x' is missing; it is float32\[32, 64\]"):
        model({})
    with pytest.raises(bundle.TensorsInvalid, match=r"has the shape \[64\]; the model takes \[32, 64\]"):
        model({"x": good[0]})
    with pytest.raises(bundle.TensorsInvalid, match="is float64; the model takes float32"):
        model({"x": good.astype(np.float64)})


def test_what_is_no_library_does_not_load() -> None:
    manifest = bundle.Manifest(name="m", target="llvm", inputs=(), outputs=())
    with pytest.raises(bundle.BundleInvalid, match="does not load on this machine"):
        opened(manifest, b"not a library")


def test_references_are_equal_for_equal_seeds_and_hold_no_pickles() -> None:
    assert reference(perceptron(), {}, 4) == reference(perceptron(), {}, 4)
    assert reference(perceptron(), {}, 4).inputs != reference(perceptron(), {}, 5).inputs
    with pytest.raises(ValueError, match="allow_pickle=False"):
        pack_arrays({"objects": np.array([object()])})


def test_a_model_that_onnx_runtime_refuses_is_invalid() -> None:
    with pytest.raises(ModelInvalid, match="shape"):
        reference(residual_net(batch="batch"), {}, 0)
