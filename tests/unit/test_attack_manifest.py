"""Bundles that nobody packed: whole and undamaged, or refused in a sentence before they cost anything."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resonator.bundle import LIBRARY, MANIFEST, BundleInvalid, Manifest, pack, read
from resonator.tensors import TensorSpec

SPEC = TensorSpec(name="x", shape=(1, 3), dtype="float32")
PLAIN = Manifest(name="small", target='{"kind": "llvm"}', inputs=(SPEC,), outputs=(SPEC,))
CODE = b"library"
BUNDLE = pack(CODE, PLAIN)


def heard(data: bytes) -> bool:
    """Whether these are a bundle: it packs into as good a one; others are refused in a sentence."""
    try:
        manifest, library = read(data)
    except BundleInvalid as error:
        said = str(error)
        assert 0 < len(said) < 1000
        assert said.isprintable()
        return False
    assert read(pack(library, manifest)) == (manifest, library)
    return True


def tar(*members: tuple[tarfile.TarInfo | str, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        for info, data in members:
            member = tarfile.TarInfo(info) if isinstance(info, str) else info
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def manifest(**changes: Any) -> bytes:
    plain = json.loads(PLAIN.model_dump_json())
    digests = {LIBRARY: hashlib.sha256(CODE).hexdigest()}
    return json.dumps({**plain, "digests": digests, **changes}).encode()


def test_attack_free_bundles_are_read() -> None:
    assert heard(BUNDLE)
    assert heard(tar((MANIFEST, manifest()), (LIBRARY, CODE)))
    assert heard(tar((MANIFEST, manifest()), (LIBRARY, CODE), form=tarfile.GNU_FORMAT))


@given(st.lists(st.tuples(st.integers(0, len(BUNDLE) - 1), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=500, deadline=None)
def test_attack_by_changed_bytes(changes: list[tuple[int, int]]) -> None:
    data = bytearray(BUNDLE)
    for place, byte in changes:
        data[place] = byte
    if heard(bytes(data)):
        assert read(bytes(data))[1] == CODE


@given(
    st.sampled_from(list(Manifest.model_fields)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    ),
)
@settings(max_examples=300, deadline=None)
def test_attack_by_a_manifest_with_anything_in_it(field: str, value: Any) -> None:
    if heard(tar((MANIFEST, manifest(**{field: value})), (LIBRARY, CODE))):
        assert field != "digests"


def sized(header_size: bytes) -> bytes:
    """Return a bundle whose first member claims a size, its checksum right."""
    data = bytearray(BUNDLE)
    data[124:136] = header_size
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    return bytes(data)


def sparse() -> bytes:
    """Return a tar file of 1 kB whose first member is 2 GiB of holes."""
    member = tarfile.TarInfo(MANIFEST)
    member.type = tarfile.GNUTYPE_SPARSE
    data = bytearray(tar((member, b""), form=tarfile.GNU_FORMAT))
    data[386:398] = data[398:410] = b"0" * 11 + b"\0"
    data[483:495] = b"17777777777\0"
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    return bytes(data)


def extended(kind: bytes, data: bytes, times: int = 1) -> bytes:
    """Return a bundle behind headers of headers."""
    member = tarfile.TarInfo("x")
    member.type = kind
    head = tar((member, data))
    return head[: 512 + -(-len(data) // 512) * 512] * times + BUNDLE


@pytest.mark.parametrize(
    "data",
    [
        sized(b"77777777777\0"),
        sized(b"\x80" + bytes(3) + struct.pack(">Q", 2**63)),
        sized(b"\xff" * 12),
        sized(b"\xff" * 11 + b"\x00"),
        sized(b"not a number"),
        sparse(),
        extended(tarfile.XHDTYPE, b"12 size=-99\n"),
        extended(tarfile.XHDTYPE, b"20 size=" + b"9" * 10 + b"\n"),
        extended(tarfile.XHDTYPE, b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"),
        extended(tarfile.XHDTYPE, b"0 x=y\n"),
        extended(tarfile.XHDTYPE, b"12 path=/etc\n", 2000),
        extended(tarfile.GNUTYPE_LONGNAME, b"../" * 400 + b"\0"),
        extended(tarfile.GNUTYPE_LONGNAME, b"x\0", 2000),
        tar(("../../own.key", b"")),
        tar(("/etc/passwd", b"")),
        tar(("\x1b[2J\n", b"")),
        tar((MANIFEST, b"{"), (LIBRARY, CODE)),
        tar((MANIFEST, b"[" * 100_000), (LIBRARY, CODE)),
        tar((MANIFEST, b'{"a":' * 50_000), (LIBRARY, CODE)),
        tar((MANIFEST, b"\xff\xfe"), (LIBRARY, CODE)),
        tar((MANIFEST, b'{"name": "\\ud800"}'), (LIBRARY, CODE)),
        tar((MANIFEST, manifest(trials=2**70)), (LIBRARY, CODE)),
        tar((MANIFEST, manifest(digests={LIBRARY: "x", "\x1b": "y"})), (LIBRARY, CODE)),
        tar((MANIFEST, manifest(**{"\x1b" * 50_000: 1})), (LIBRARY, CODE)),
        tar((MANIFEST, manifest(inputs=[{}] * 200_000)), (LIBRARY, CODE)),
        tar((MANIFEST, manifest(inputs=[{"name": "x", "shape": [-1], "dtype": "O"}])), (LIBRARY, CODE)),
        tar((MANIFEST, manifest()), (LIBRARY, CODE + b"x")),
        tar((MANIFEST, manifest()), (LIBRARY, CODE), ("more", b"")),
        bytes(10_240),
        b"PK\x03\x04" + bytes(1000),
    ],
    ids=range(30),
)
def test_attack_by_archives_that_are_no_bundles(data: bytes) -> None:
    tracemalloc.start()
    try:
        assert not heard(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 32 * 2**20


def test_attack_by_a_bundle_of_holes(tmp_path: Path) -> None:
    """A terabyte of nothing behind a bundle is not looked at."""
    holes = tmp_path / "holes.tar"
    with holes.open("wb") as file:
        file.write(BUNDLE)
        file.truncate(2**40)
    assert read(holes)[1] == CODE
