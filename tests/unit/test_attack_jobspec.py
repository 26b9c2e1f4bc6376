"""Job descriptions that nobody means well: read as a job, or refused in a sentence, soon."""

from __future__ import annotations

import copy
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resonator.client.order import read_job
from resonator.errors import InputInvalid
from resonator.jobspec import MAX_SPEC_BYTES, TuningJob, parse

JOB: dict[str, Any] = {
    "apiVersion": "resonator/v1",
    "kind": "TuningJob",
    "metadata": {"name": "m"},
    "spec": {
        "model": {"onnx": "m.onnx", "shapes": {"x": [1, 3, 224, 224]}},
        "target": {"kind": "cpu", "labels": {"model": "el300"}},
        "budget": {"trials": 64, "time": "2h"},
        "objective": {"latency_ms": 5.0},
        "measure": {"number": 3, "repeat": 3},
    },
}
TEXT = yaml.safe_dump(JOB)
LAUGHS = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
)
LINES_S = 5.0


def refused(text: str | bytes) -> str:
    """Return why a text is no job, in a sentence that could be printed anywhere; empty for a job."""
    try:
        job = parse(text)
    except InputInvalid as error:
        said = str(error)
        assert 0 < len(said) < 1000
        assert said.isprintable()
        return said
    assert isinstance(job, TuningJob)
    assert TuningJob.model_validate(job.model_dump(by_alias=True)) == job
    return ""


def test_attack_the_job_itself_is_one() -> None:
    assert refused(TEXT) == ""
    assert refused(json.dumps(JOB)) == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (LAUGHS, "extra inputs are not permitted"),
        (MERGES, "`<<` is not accepted here"),
        ("spec: &s {target: *s}", "field required"),
        (TEXT + "kind: TuningJob\n", "this key occurs twice"),
        ('{"kind": "TuningJob", "kind": "TuningJob"}', "this key occurs twice"),
        (TEXT.replace("name: m", "name: !!python/object/apply:os.system ['true']"), "not YAML"),
        ("!!python/object/new:" + "x" * 50_000 + " {}", "not YAML"),
        ("--- a\n--- b\n", "not YAML"),
        (TEXT.replace("64", "9" * 5000), "not YAML"),
        (TEXT.replace("64", "0x" + "f" * 5000), "spec.budget.trials"),
        (TEXT.replace("64", "1:" * 300 + "1.5"), "not YAML"),
        (TEXT.replace("64", '!!int ""'), "not YAML"),
        (TEXT.replace("64", ".nan"), "spec.budget.trials"),
        (TEXT.replace("5.0", ".inf"), "spec.objective.latency_ms"),
        (TEXT.replace("5.0", ".nan"), "spec.objective.latency_ms"),
        (TEXT.replace("2h", "9" * 400 + "d"), "spec.budget.time"),
        (TEXT.replace("2h", "2001-99-99"), "not YAML"),
        (TEXT.replace("name: m", r'name: "\uD800"'), "metadata.name"),
        (TEXT.replace("onnx: m.onnx", r'onnx: "\uD800"'), "spec.model.onnx"),
        (TEXT.replace("name: m", r'name: "a\0b"'), "metadata.name"),
        (TEXT.replace("name: m", r'"\e[2J": m'), "metadata"),
        (TEXT.replace("224", str(2**62)), "spec.model.shapes.x"),
        (TEXT.replace("- 3", "- 65536\n      - 65536"), "spec.model.shapes.x"),
        ("[" * 20_000, "not YAML"),
        ("{a: " * 10_000, "not YAML"),
        ("- " * 20_000, "not YAML"),
        ("? " * 20_000, "not YAML"),
        ('"' + "x" * 10_000_000 + '"', f"at most {MAX_SPEC_BYTES} bytes"),
        (b"\xff\xfe\x00\xd8", "not YAML"),
        (b"\x80", "not YAML"),
        ("\0", "not YAML"),
        ("", "a mapping"),
        ("{? [a, b] : c}", "not YAML"),
        ("{? {a: b} : c}", "not YAML"),
        ("1: 2", "keys should be strings"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_attack_by_a_job_description_ends_in_a_sentence(text: str | bytes, sentence: str) -> None:
    tracemalloc.start()
    began = time.process_time()
    try:
        said = refused(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert sentence in said
    assert time.process_time() - began < LINES_S
    assert peak < 100 * 2**20


def test_attack_by_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputInvalid, match="is not a file"):
        read_job(tmp_path)
    with pytest.raises(InputInvalid, match="not a file"):
        read_job(Path("/dev/zero"))
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputInvalid, match="1 to 65536 are accepted"):
        read_job(huge)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=8)
    | st.dates()
    | st.sampled_from(["90s", "1e999", "0x10", "\x1b[2J", "a/b", "x" * 300])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.data(), VALUES, st.sampled_from(["replace", "remove", "add"]))
@settings(max_examples=300, deadline=None)
def test_attack_by_a_job_with_anything_in_it(data: st.DataObject, value: Any, how: str) -> None:
    job = copy.deepcopy(JOB)
    place: Any = job
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or data.draw(st.booleans()):
            break
        place = place[key]
    match how:
        case "replace":
            place[key] = value
        case "remove":
            del place[key]
        case _:
            place[data.draw(st.text(max_size=20))] = value

    assert isinstance(refused(yaml.safe_dump(job, allow_unicode=data.draw(st.booleans()))), str)


@given(st.text(alphabet=st.characters() | st.sampled_from("{}[]:,&*!|>?-#\"'%@`\n <"), max_size=200))
@example("&a [*a]")
@example("*a")
@example("!!set {a, b}")
@example("!!omap [a: 1, b: 2]")
@example("!!binary a")
@example("!!timestamp x")
@example("%TAG ! tag:x\n--- !y")
@settings(max_examples=300, deadline=None)
def test_attack_by_any_text(text: str) -> None:
    assert refused(text)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_attack_by_any_bytes(data: bytes) -> None:
    assert refused(data)
