"""The shape and element type of a model's or kernel's argument."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, FailFast, Field

MAX_NAME = 256


class TensorSpec(BaseModel):
    """One argument: `shape` in elements, `dtype` by numpy's name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(max_length=MAX_NAME)]
    shape: Annotated[tuple[Annotated[int, Field(ge=0, le=2**31)], ...], FailFast(), Field(max_length=16)]
    dtype: Annotated[str, Field(max_length=16, pattern=r"^[a-z]+[0-9]*$")]
