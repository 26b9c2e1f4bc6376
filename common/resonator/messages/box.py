"""What a box is, and what it was like while it measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import FailFast, Field, StringConstraints

from resonator.jobspec import Label, LabelValue
from resonator.messages.base import (
    Count,
    Part,
    Seconds,
    Text,
)


class Offer(Part):
    """One target that a box can run code for: the exact TVM target as JSON text."""

    kind: Literal["cpu", "cuda"]
    target: Annotated[str, StringConstraints(max_length=4000)]
    tag: Annotated[str, StringConstraints(max_length=128)] | None = None


class Identity(Part):
    """What a box is, as its agent probed it; memory in bytes."""

    architecture: Annotated[str, StringConstraints(max_length=64)]
    cpu_model: Text
    extensions: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=64)], ...], FailFast(), Field(max_length=512)
    ] = ()
    cores: Annotated[int, Field(gt=0, le=4096)]
    cores_used: Annotated[
        tuple[Annotated[int, Field(ge=0, le=4095)], ...], FailFast(), Field(min_length=1, max_length=4096)
    ]
    memory: Count
    gpus: Annotated[tuple[Text, ...], FailFast(), Field(max_length=64)] = ()
    tvm_version: Annotated[str, StringConstraints(max_length=64)]
    agent_version: Annotated[str, StringConstraints(max_length=64)]
    labels: Annotated[dict[Label, LabelValue], Field(max_length=32)] = Field(default_factory=dict)
    offers: Annotated[tuple[Offer, ...], FailFast(), Field(min_length=1, max_length=16)]


class Conditions(Part):
    """What the box was like while it measured; None where the system does not show it.

    `frequency_hz` is the mean over the cores used, `temperature_c` the hottest sensor, and `foreign_load`
    the share (0..1) of the cores used that other processes took.
    """

    frequency_hz: Seconds | None = None
    temperature_c: Annotated[float, Field(allow_inf_nan=False)] | None = None
    foreign_load: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
