"""The job description a user writes, and how it is read: YAML or JSON, validated at the door."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from resonator import documents
from resonator.errors import InputInvalid, quotable
from resonator.ids import NAME_PATTERN, NAME_RULE, Name

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*$")
MAX_SPEC_BYTES = 64 * 1024
_SHORT = reprlib.Repr()
"""Shows a value without walking all of it: aliases make a few bytes of YAML a tree of any size."""
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel = 3
MAX_SENTENCE = 900
MANY_ERRORS = 100

LABEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$"
Label = Annotated[str, StringConstraints(pattern=LABEL_PATTERN)]
LabelValue = Annotated[str, StringConstraints(min_length=1, max_length=128)]


def seconds(value: object) -> object:
    """Read `90`, `"90s"`, `"30m"`, `"2h"` or `"1d"` as seconds; other types are pydantic's to judge."""
    if not isinstance(value, str):
        return value
    match = _DURATION.match(value)
    if match is None:
        raise ValueError("a time is a number of seconds, or one with s, m, h or d behind it, such as 90s")
    return float(match[1]) * _UNITS[match[2] or "s"]


def _reasonable(dims: tuple[int, ...]) -> tuple[int, ...]:
    product = 1
    for dim in dims:
        product *= dim
    if product > 2**31:
        raise ValueError(f"a tensor of {product} elements is beyond the limit of 2147483648")
    return dims


Shape = Annotated[
    tuple[Annotated[int, Field(gt=0, le=2**31)], ...],
    FailFast(),
    Field(max_length=8),
    AfterValidator(_reasonable),
]
Duration = Annotated[float, BeforeValidator(seconds), Field(gt=0, le=30 * 86400.0, allow_inf_nan=False)]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class ModelSpec(_Spec):
    """The model: an ONNX file beside the job file, and the sizes of its dynamic inputs."""

    onnx: Annotated[str, Field(min_length=1, max_length=4096, description="path of the ONNX file")]
    shapes: Annotated[dict[str, Shape], Field(max_length=64)] = Field(default_factory=dict)


class TargetSpec(_Spec):
    """The hardware: every condition given must hold for a device to be chosen."""

    kind: Literal["cpu", "cuda"] | None = None
    tag: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="a TVM target tag, such as nvidia/jetson-orin-nano"
    )
    device: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="NAME or SITE/NAME"
    )
    labels: Annotated[dict[Label, LabelValue], Field(max_length=16)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _says_something(self) -> TargetSpec:
        if not (self.kind or self.tag or self.device or self.labels):
            raise ValueError("name the hardware by at least one of kind, tag, device or labels")
        return self

    def __str__(self) -> str:
        parts = [f"{key} {value}" for key in ("kind", "tag", "device") if (value := getattr(self, key))]
        parts += [f"label {key}={value}" for key, value in sorted(self.labels.items())]
        return ", ".join(parts)


class Budget(_Spec):
    """What the job may spend: trials over all tasks, and time from its start, whichever ends first."""

    trials: Annotated[int, Field(gt=0, le=1_000_000)] = 512
    time: Duration | None = None
    again: Annotated[
        bool, Field(description="tune on, also where earlier jobs have tried as much as this one would")
    ] = False


class Objective(_Spec):
    """When the job is good enough to stop."""

    latency_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Measure(_Spec):
    """How a kernel is timed, by TVM's names (`time_evaluator`)."""

    number: Annotated[int, Field(gt=0, le=1000)] = 3
    repeat: Annotated[int, Field(gt=0, le=100)] = 3
    min_repeat_ms: Annotated[int, Field(ge=0, le=10_000)] = 100
    cooldown_ms: Annotated[int, Field(ge=0, le=60_000)] = 0
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0


class JobBody(_Spec):
    """What is to be tuned, for which hardware, at what expense."""

    model: ModelSpec
    target: TargetSpec
    budget: Budget = Field(default_factory=Budget)
    objective: Objective | None = None
    priority: Annotated[int, Field(ge=0, le=9, description="9 is the most urgent")] = 5
    measure: Measure = Field(default_factory=Measure)
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class Metadata(_Spec):
    """What people call the job."""

    name: Name


class TuningJob(_Spec):
    """A job as a user writes it."""

    api_version: Literal["resonator/v1"] = Field(default="resonator/v1", alias="apiVersion")
    kind: Literal["TuningJob"] = "TuningJob"
    metadata: Metadata
    spec: JobBody


def parse(text: str | bytes) -> TuningJob:
    """Read a job from YAML or JSON text; raises `InputInvalid` naming field, value and what is accepted."""
    if len(text) > MAX_SPEC_BYTES:
        raise InputInvalid(f"a job description has at most {MAX_SPEC_BYTES} bytes, this one has {len(text)}")
    try:
        data = documents.load(text)
    except ValueError as error:
        raise InputInvalid(quotable(f"the job description is not YAML: {error}", MAX_SENTENCE)) from error
    if not isinstance(data, Mapping):
        raise InputInvalid("a job description is a mapping that begins with `apiVersion: resonator/v1`")
    return validate(data)


def validate(data: Mapping[str, Any]) -> TuningJob:
    """Check a job given as plain data; raises `InputInvalid` as `parse` does."""
    try:
        return TuningJob.model_validate(data)
    except ValidationError as error:
        raise InputInvalid(explain(error)) from error


_RULES: dict[str | None, str] = {
    NAME_PATTERN: f"a name is made of {NAME_RULE}",
    LABEL_PATTERN: "a label's key is made of letters, digits, '.', '_', '/' and '-', at most 63, "
    "beginning with a letter or digit",
}


def explain(error: ValidationError, *, most: int = 5) -> str:
    """Say in one line what pydantic refused: field, what is accepted, and the value that was given."""
    if error.error_count() > MANY_ERRORS:  # to look at each would take its time
        return f"{error.error_count()} fields are not as they have to be"
    lines = [_explain_one(item) for item in error.errors(include_url=False)[:most]]
    if error.error_count() > most:
        lines.append(f"and {error.error_count() - most} more")
    return quotable("; ".join(lines), MAX_SENTENCE)


def _explain_one(item: Any) -> str:
    field = quotable(".".join(map(_part, _field_path(item["loc"]))), 200) or "the whole"
    message = _RULES.get(item.get("ctx", {}).get("pattern"), item["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if item["type"] in {"missing", "extra_forbidden"}:
        return f"{field}: {message}"
    return f"{field}: {message}, not {shown(item['input'])}"


def _field_path(loc: Iterable[int | str]) -> Iterable[int | str]:
    # pydantic adds each validator it went through ("function-before[...]"); users know none of them
    return (part for part in loc if not (isinstance(part, str) and "[" in part))


def _part(part: int | str) -> str:
    """Spell one step to a field; keys of a map are whatever somebody wrote."""
    return str(part) if isinstance(part, int) else quotable(part, 80)


def shown(value: object) -> str:
    """Show somebody's value in a sentence: on one line, with nothing that a terminal would act upon."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # Python writes no numbers of thousands of digits
        text = f"a {type(value).__name__}"
    return quotable(text, 80)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a job description."""
    schema = TuningJob.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
