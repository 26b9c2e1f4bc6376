"""Bytes by digest: carried along, or pulled in chunks by either side."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator
from typing_extensions import Self

from resonator.ids import Digest
from resonator.messages.base import (
    MAX_CHUNK,
    MAX_INLINE,
    Message,
    Part,
    Size,
)


class BlobRef(Part):
    """Bytes named by their SHA-256; `data` carries small ones along (zlib), large ones are pulled.

    Small are those of up to `MAX_INLINE` bytes before they were packed.
    """

    digest: Digest
    size: Size
    data: Annotated[bytes, Field(max_length=MAX_INLINE)] | None = None

    @model_validator(mode="after")
    def _fits_inside(self) -> Self:
        if self.data is not None and self.size > MAX_INLINE:
            raise ValueError(f"{self.size} bytes do not ride along, at most {MAX_INLINE} do")
        return self


class BlobRequest(Message):
    """Asks for `length` bytes of a blob from `offset` on."""

    wire: ClassVar[str] = "blob.request"
    digest: Digest
    offset: Size
    length: Annotated[int, Field(gt=0, le=MAX_CHUNK)]


class BlobChunk(Message):
    """Bytes of a blob of `total` bytes, from `offset` on."""

    wire: ClassVar[str] = "blob.chunk"
    digest: Digest
    offset: Size
    total: Size
    data: Annotated[bytes, Field(max_length=MAX_CHUNK)]


class BlobAbsent(Message):
    """The peer does not have that blob."""

    wire: ClassVar[str] = "blob.absent"
    digest: Digest
