"""Job descriptions: what is accepted, and the one sentence for what is not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from resonator import jobspec
from resonator.errors import InputInvalid
from resonator.jobspec import parse

EXAMPLE = """
apiVersion: resonator/v1
kind: TuningJob
metadata: {name: squeezenet-el300}
spec:
  model: {onnx: squeezenet.onnx, shapes: {data: [1, 3, 224, 224]}}
  target: {labels: {model: el300}}
  budget: {trials: 2000, time: 2h}
  objective: {latency_ms: 4.0}
  priority: 5
  measure: {number: 3, repeat: 3, min_repeat_ms: 100}
"""


def with_spec(**spec: object) -> dict[str, object]:
    whole = {"model": {"onnx": "m.onnx"}, "target": {"kind": "cpu"}, **spec}
    return {"metadata": {"name": "m"}, "spec": whole}


def test_the_example_of_the_user_guide_is_read() -> None:
    job = parse(EXAMPLE)

    assert job.spec.budget.time == 7200.0
    assert job.spec.model.shapes == {"data": (1, 3, 224, 224)}
    assert str(job.spec.target) == "label model=el300"


@pytest.mark.parametrize("page", ["README.md", "docs/user-guide.md"])
def test_the_job_files_in_the_documentation_are_read(page: str) -> None:
    text = (Path(__file__).parents[2] / page).read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)

    assert [parse(block).metadata.name for block in blocks] == ["squeezenet-el300"]


def test_a_short_job_gets_the_defaults() -> None:
    job = jobspec.validate(with_spec())

    assert (job.spec.budget.trials, job.spec.budget.time, job.spec.priority) == (512, None, 5)
    assert job.spec.objective is None


@pytest.mark.parametrize(
    ("spec", "field", "value", "accepted"),
    [
        ({"budget": {"trials": 0}}, "spec.budget.trials", "0", "greater than 0"),
        ({"budget": {"trials": -3}}, "spec.budget.trials", "-3", "greater than 0"),
        ({"budget": {"trials": 2_000_000}}, "spec.budget.trials", "2000000", "1000000"),
        ({"budget": {"trials": "many"}}, "spec.budget.trials", "'many'", "integer"),
        ({"budget": {"time": "2x"}}, "spec.budget.time", "'2x'", "s, m, h or d"),
        ({"budget": {"time": 0}}, "spec.budget.time", "0", "greater than 0"),
        ({"budget": {"time": "-2h"}}, "spec.budget.time", "'-2h'", "s, m, h or d"),
        ({"budget": {"time": float("nan")}}, "spec.budget.time", "nan", "greater than 0"),
        ({"priority": 10}, "spec.priority", "10", "less than or equal to 9"),
        ({"objective": {"latency_ms": 0}}, "spec.objective.latency_ms", "0", "greater than 0"),
        ({"objective": {"latency_ms": float("inf")}}, "spec.objective.latency_ms", "inf", "finite"),
        ({"target": {"kind": "tpu"}}, "spec.target.kind", "'tpu'", "'cpu' or 'cuda'"),
        ({"target": {}}, "spec.target", "{}", "kind, tag, device or labels"),
        ({"target": {"labels": {"a b": "c"}}}, "spec.target.labels", "'a b'", "letters, digits"),
        ({"target": {"labels": {"a": ""}}}, "spec.target.labels.a", "''", "at least 1"),
        ({"model": {"onnx": ""}}, "spec.model.onnx", "''", "at least 1"),
        (
            {"model": {"onnx": "m", "shapes": {"x": [0, 3]}}},
            "spec.model.shapes.x.0",
            "0",
            "greater than 0",
        ),
        (
            {"model": {"onnx": "m", "shapes": {"x": [65536, 65536]}}},
            "spec.model.shapes.x",
            "65536",
            "2147483648",
        ),
        ({"measure": {"repeat": 0}}, "spec.measure.repeat", "0", "greater than 0"),
        ({"measure": {"timeout_s": 601}}, "spec.measure.timeout_s", "601", "600"),
        ({"seed": -1}, "spec.seed", "-1", "greater than or equal to 0"),
        ({"seed": []}, "spec.seed", "[]", "integer"),
    ],
)
def test_a_bad_value_is_answered_with_field_value_and_what_is_accepted(
    spec: dict[str, object], field: str, value: str, accepted: str
) -> None:
    with pytest.raises(InputInvalid) as raised:
        jobspec.validate(with_spec(**spec))

    sentence = str(raised.value)
    assert sentence.startswith(field)
    assert value in sentence
    assert accepted in sentence
    assert "\n" not in sentence


def test_missing_and_unknown_fields_are_named() -> None:
    with pytest.raises(InputInvalid, match=r"^metadata: field required; spec\.modell: extra inputs"):
        jobspec.validate({"spec": with_spec(modell=1)["spec"]})


def test_of_many_errors_the_first_five_are_told() -> None:
    with pytest.raises(InputInvalid, match=r"and 3 more$"):
        jobspec.validate(with_spec(**{f"extra{index}": 1 for index in range(8)}))


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: \x00",
        b"\xff\xfe\x00",
        "metadata: 2001-99-99",
        "seed: " + "9" * 5000,
        "!!timestamp x",
        "!!bool x",
        "!!int x",
        "!!python/object:os.system x",
        "- " * 2000 + "x",
        "? [1]\n: 2",
    ],
)
def test_text_that_is_no_yaml_is_one_sentence(text: str | bytes) -> None:
    with pytest.raises(InputInvalid, match="is not YAML") as raised:
        parse(text)

    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "just words", "[1, 2]", "7"])
def test_text_that_is_no_mapping_says_how_a_job_begins(text: str) -> None:
    with pytest.raises(InputInvalid, match="apiVersion"):
        parse(text)


def test_a_description_beyond_the_limit_is_not_read() -> None:
    with pytest.raises(InputInvalid, match="at most 65536 bytes, this one has 70000"):
        parse("#" * 70_000)


def test_aliases_that_unfold_to_a_huge_tree_cost_nothing() -> None:
    levels = [f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]" for level in range(1, 12)]
    bomb = "\n".join(["l0: &l0 [x]", *levels, "spec: {seed: *l11}"])

    with pytest.raises(InputInvalid) as raised:
        parse(bomb)

    assert len(str(raised.value)) < 1000


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_whatever_the_text_only_one_kind_of_error_escapes(text: str | bytes) -> None:
    assert outcome(text) != ""


def outcome(text: str | bytes) -> str:
    try:
        return parse(text).kind
    except InputInvalid as error:
        return str(error)


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
dims = st.lists(st.integers(1, 64), max_size=4)
jobs = st.builds(
    lambda name, shapes, labels, trials, time, priority, seed: {
        "apiVersion": "resonator/v1",
        "metadata": {"name": name},
        "spec": {
            "model": {"onnx": "m.onnx", "shapes": shapes},
            "target": {"kind": "cpu", "labels": labels},
            "budget": {"trials": trials, "time": time},
            "priority": priority,
            "seed": seed,
        },
    },
    names,
    st.dictionaries(names, dims, max_size=3),
    st.dictionaries(names, names, max_size=3),
    st.integers(1, 1_000_000),
    st.none() | st.floats(0.5, 1e6) | st.integers(1, 400).map("{}h".format),
    st.integers(0, 9),
    st.integers(0, 2**31 - 1),
)


@given(jobs)
def test_what_is_written_is_what_is_read_in_yaml_and_json(data: dict[str, object]) -> None:
    job = jobspec.validate(data)
    written = job.model_dump(mode="json", by_alias=True)

    assert parse(yaml.safe_dump(written)) == job
    assert parse(json.dumps(written)) == job
    assert parse(job.model_dump_json(by_alias=True)) == job
