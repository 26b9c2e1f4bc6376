"""Small blobs ride inside messages, compressed; larger ones are only announced."""

from __future__ import annotations

import zlib

from resonator.bus.blobs import Blobs, digest_of
from resonator.errors import MessageInvalid
from resonator.messages import MAX_INLINE, BlobRef


def reference(store: Blobs, digest: str, *, inline: bool = True) -> BlobRef:
    """Name a blob of the store, its bytes included if it is small; raises BlobMissing."""
    _, size = store.read(digest, 0, 0)
    data = None
    if inline and size <= MAX_INLINE:
        packed = zlib.compress(store.get(digest), 1)
        data = packed if len(packed) <= MAX_INLINE else None
    return BlobRef(digest=digest, size=size, data=data)


def unpack(ref: BlobRef) -> bytes:
    """Return the bytes that came along; raises MessageInvalid when they are not what was announced."""
    assert ref.data is not None, "only what rides along can be unpacked"
    if ref.size > MAX_INLINE:
        raise MessageInvalid(
            f"blob {ref.digest}: {ref.size} bytes are said to have come along; at most {MAX_INLINE} may"
        )
    decoder = zlib.decompressobj()
    try:
        data = decoder.decompress(ref.data, ref.size + 1)
    except zlib.error as error:
        raise MessageInvalid(f"blob {ref.digest}: the bytes that came along are not zlib: {error}") from error
    if len(data) != ref.size or digest_of(data) != ref.digest:
        raise MessageInvalid(f"blob {ref.digest}: the bytes that came along have another size or digest")
    return data
