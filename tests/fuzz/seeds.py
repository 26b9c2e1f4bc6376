"""What a fuzzer begins with: a few messages of every type as they travel, and the words they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from fakes.any_message import any_message
from resonator.bus.codec import Envelope, encode
from resonator.messages import TYPES

EACH = 6


class StandIn:
    """Seals with no key: what is said is that a message is sealed, and by whom."""

    certificate = b"certificate"

    def sign(self, topic: str, content: bytes) -> bytes:
        return b"signature"


def messages() -> Iterator[bytes]:
    """Yield the same bytes at each call."""
    random = Random(4)
    for wire in sorted(TYPES):
        for index in range(EACH):
            seal = StandIn() if index % 2 else None
            yield encode(any_message(random, wire), id="i", source="s/d", corr="c", topic="t", seal=seal)


def words() -> Iterator[bytes]:
    """Yield names of types and fields, as msgpack writes short strings, and heads that promise much."""
    names = {*TYPES, *Envelope.model_fields}
    names.update(field for kind in TYPES.values() for field in kind.model_fields)
    for name in sorted(names):
        head = bytes([0xA0 | len(name)]) if len(name) < 32 else bytes([0xD9, len(name)])
        yield head + name.encode()
    yield from (b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xde\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc0")
    yield from (b"\xcf" + b"\xff" * 8, b"\xcb\x7f\xf8" + bytes(6), b"\xcb\x7f\xf0" + bytes(6), b"\xd6\xff")


def lay_out(folder: Path) -> tuple[Path, Path]:
    """Write the messages and the words; return the folder of the ones and the file of the others."""
    corpus, dictionary = folder / "seeds", folder / "words.dict"
    corpus.mkdir(parents=True, exist_ok=True)
    for index, data in enumerate(messages()):
        (corpus / f"{index:04}").write_bytes(data)
    quoted = ("".join(f"\\x{byte:02x}" for byte in word) for word in words())
    dictionary.write_text("".join(f'"{word}"\n' for word in quoted))
    return corpus, dictionary
