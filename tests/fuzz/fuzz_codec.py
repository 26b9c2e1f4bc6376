"""Feeds the codec what atheris (libFuzzer) thinks of: `make fuzz`, or by hand with arguments of libFuzzer.

    python tests/fuzz/fuzz_codec.py -runs=100000 .fuzz/codec

Of any bytes the codec makes a message, which it writes and reads as the same again, or `MessageInvalid` with
one sentence. Whatever else comes of them ends the run, and the bytes are kept.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris
import msgpack

sys.path[:0] = [str(Path(__file__).parents[1])]

with atheris.instrument_imports(include=["resonator"]):
    from resonator.bus.codec import Decoded, decode, encode
    from resonator.errors import MessageInvalid
    from resonator.trust.party import Party

from fuzz import mutations, seeds  # noqa: E402 - instrumented before

MOST_SIGNS = 1000
MOST_BYTES = 2048
SLOW_S = 2
AS_MESSAGE = 3
KNOWN = tuple(seeds.messages())
RSS_MB = 1024
PARTY = Party("submitter", "lab", "ann")


def check(content: bytes, certificate: bytes | None, signature: bytes | None) -> Party:
    """Stand in for the check of a signature: it must be given what anybody can be asked to have signed."""
    said = msgpack.unpackb(content)
    assert said["sig"] is said["cert"] is None
    if signature is None or certificate is None:
        raise MessageInvalid("it is not signed")
    return PARTY


def one_input(data: bytes) -> None:
    """Read some bytes, every second time as those who check signatures do."""
    checking = check if len(data) % 2 else None
    try:
        decoded = decode(data, checking)
    except MessageInvalid as error:
        assert_sentence(str(error))
        return
    assert (decoded.party is None) is (checking is None)
    assert read_again(decoded) == decoded.message


def read_again(decoded: Decoded) -> object:
    """Write a message and read it; what came in few bytes may take more than a message has."""
    try:
        written = encode(decoded.message, id=decoded.id, source=decoded.source, seq=decoded.seq)
    except MessageInvalid as error:
        if "beyond the limit" not in str(error):
            raise
        return decoded.message
    return decode(written).message


def assert_sentence(said: str) -> None:
    """Fail for what is no sentence to be put into a log: too long, or with signs that a terminal obeys."""
    assert 0 < len(said) < MOST_SIGNS, said
    assert said.isprintable(), said


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Change a message as such now and then, which takes time, and mostly the bytes of anything."""
    if not seed % AS_MESSAGE:
        changed = mutations.changed(data, seed) or mutations.changed(KNOWN[seed % len(KNOWN)], seed)
        if changed is not None and len(changed) <= most:
            return changed
    mutated: bytes = atheris.Mutate(data, most)
    return mutated


def main() -> None:
    """Run until the fuzzer has enough; the last folder named is where it keeps what it found, and goes on."""
    found = Path(next((word for word in reversed(sys.argv[1:]) if not word.startswith("-")), ".fuzz/codec"))
    found.mkdir(parents=True, exist_ok=True)
    known, words = seeds.lay_out(found.parent)
    given = [word for word in sys.argv[1:] if word.startswith("-")]
    limits = [
        f"-max_len={MOST_BYTES}",
        f"-timeout={SLOW_S}",
        f"-rss_limit_mb={RSS_MB}",
        "-use_counters=0",  # a loop run once more is nothing new: what loops longest would else be kept
        "-keep_seed=1",
        "-mutate_depth=2",
        "-print_final_stats=1",
    ]
    kept = f"-artifact_prefix={found.parent}/"
    arguments = [sys.argv[0], f"-dict={words}", *limits, kept, *given, str(found), str(known)]
    atheris.Setup(arguments, one_input, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
