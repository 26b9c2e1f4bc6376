"""Trust in results: what no box can have measured is told from what it may have, at the bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fakes.shell import identity
from resonator.ids import CandidateId, DeviceId, JobId
from resonator.jobspec import Measure
from resonator.messages import KernelResult
from resonator.tensors import TensorSpec
from resonator_agent import racing
from resonator_hub.measure import plausible
from resonator_hub.measure.plausible import objection
from resonator_hub.scheduler.commands import Profile

FLOPS = 1e9
BOX = identity(cores=4, cores_used=(0, 1))


def pushed(**changes: Any) -> Profile:
    asked = Profile(
        DeviceId("lab/box"), 1, JobId("j"), CandidateId("j/t0/c0"), "", 1, race_s=1.0, flops=FLOPS
    )
    return replace(asked, **changes)


def told(*latencies: float, **changes: object) -> KernelResult:
    fields = {"latencies": latencies, "device_time": 2 * sum(latencies) + 0.01, **changes}
    return KernelResult.model_validate({"job": "j", "candidate": "j/t0/c0", "epoch": 1, **fields})


def of(dtype: str) -> Callable[[], tuple[TensorSpec, ...]]:
    return lambda: (
        TensorSpec(name="a", shape=(1,), dtype="float32"),
        TensorSpec(name="b", shape=(1,), dtype=dtype),
    )


@pytest.mark.parametrize(
    ("dtype", "per_cycle"),
    [("float32", 128), ("float64", 128), ("float16", 1024), ("int8", 2048), ("bool", 2048)],
)
def test_attack_faster_than_the_hardware_can(dtype: str, per_cycle: float) -> None:
    # Given two cores at 7 GHz, and operations of which three in four may be skipped
    least_s = FLOPS / (2 * 7e9 * per_cycle * 4)
    # Then what is a little slower than that may be true, and what is a little faster may not
    assert objection(told(least_s * 1.01), pushed(), Measure(), BOX, of(dtype)) is None
    said = objection(told(least_s * 0.5), pushed(), Measure(), BOX, of(dtype))
    assert said is not None
    assert said.endswith("for 1e+09 operations, 2 times the most")


def test_attack_one_true_mean_does_not_hide_many_false_ones() -> None:
    assert objection(told(1.0, 1e-9, 1e-9), pushed(), Measure(), BOX, of("float32")) is not None
    assert objection(told(1.0, 1.0, 1e-9), pushed(), Measure(), BOX, of("float32")) is None


def test_attack_a_box_has_no_more_cores_than_it_says_however_often_it_names_them() -> None:
    braggart = identity(cores=1, cores_used=(0,) * 4096)
    least_s = FLOPS / (7e9 * 128 * 4)
    assert objection(told(least_s * 0.9), pushed(), Measure(), braggart, of("float32")) is not None


def test_what_is_not_known_is_not_judged_by_its_speed() -> None:
    assert objection(told(1e-9), pushed(flops=0.0), Measure(), BOX, of("int8")) is None
    assert objection(told(1e-9), pushed(), Measure(), None, of("int8")) is None


def test_attack_a_whole_model_and_a_gpu_have_bounds_too() -> None:
    model, gpu = pushed(model=True), pushed(target_kind="cuda")
    assert objection(told(1e-9), model, Measure(), BOX, of("int8")) is not None
    assert objection(told(1e-5), model, Measure(), BOX, of("int8")) is None
    assert objection(told(1e-9), gpu, Measure(), BOX, of("int8")) is not None
    assert objection(told(1e-7), gpu, Measure(), BOX, of("int8")) is None


def test_attack_less_time_than_the_measurement_took() -> None:
    assert objection(told(0.5, 0.5, device_time=1.0), pushed(), Measure(), BOX, of("int8")) is None
    said = objection(told(0.5, 0.5, device_time=0.9), pushed(), Measure(), BOX, of("int8"))
    assert said == "latencies: 1 s in all, on which the device spent 0.9 s"


@pytest.mark.parametrize(
    ("changes", "raced", "most"),
    [({}, False, 60), ({"model": True}, False, 3), ({}, True, 1)],
)
def test_attack_more_latencies_than_were_asked_for(
    changes: dict[str, object], raced: bool, most: int
) -> None:
    command, many = pushed(**changes), [0.1] * (most + 1)
    assert objection(told(*many[1:], raced=raced), command, Measure(), BOX, of("int8")) is None
    said = objection(told(*many, raced=raced), command, Measure(), BOX, of("int8"))
    assert said == f"latencies: {most + 1} of them, asked for were at most {most}"


def test_attack_a_race_against_nothing() -> None:
    said = objection(told(0.1, raced=True), pushed(race_s=None), Measure(), BOX, of("int8"))
    assert said == "raced: there was nothing to race against"


def test_an_agent_divides_a_repeat_into_as_many_parts_as_the_hub_expects() -> None:
    assert plausible.PARTS == racing.PARTS
