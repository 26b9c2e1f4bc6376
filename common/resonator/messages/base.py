"""What all messages are made of: limits, number ranges, and the base classes."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from resonator.errors import readable

VERSION = 1
MAX_MESSAGE = 4 * 1024 * 1024
MAX_INLINE = 1024 * 1024
"""Blobs up to this size may ride inside a message; larger ones are pulled in chunks."""
MAX_CHUNK = 256 * 1024
MAX_BLOB = 4 * 1024**3

Text = Annotated[str, StringConstraints(max_length=2000), AfterValidator(readable)]
"""For people, who read it in terminals."""
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[ -~]+$")]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Size = Annotated[int, Field(ge=0, le=MAX_BLOB)]
Epoch = Annotated[int, Field(ge=0, lt=2**62)]
Count = Annotated[int, Field(ge=0, lt=2**62)]


class Message(BaseModel):
    """The body of one message; `wire` is its type's name on the bus."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64")
    wire: ClassVar[str] = ""


class Part(BaseModel):
    """A piece of a message that never travels alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")
