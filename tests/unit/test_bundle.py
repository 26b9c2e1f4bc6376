"""Bundles: what is packed comes back, and nothing else is accepted."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resonator.bundle import LIBRARY, MANIFEST, BundleInvalid, Latency, Manifest, pack, read
from resonator.tensors import TensorSpec

SPEC = TensorSpec(name="x", shape=(1, 2), dtype="float32")
A_MANIFEST = Manifest(
    name="small", target='{"kind": "llvm"}', inputs=(SPEC,), outputs=(SPEC,), latency=Latency(tuned=0.001)
)


def tar_of(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(data), kind, "/etc/passwd"
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def members_of(bundle: bytes) -> tuple[bytes, bytes]:
    with tarfile.open(fileobj=io.BytesIO(bundle)) as tar:
        manifest, library = tar.extractfile(MANIFEST), tar.extractfile(LIBRARY)
        assert manifest is not None
        assert library is not None
        return manifest.read(), library.read()


def test_what_is_packed_comes_back_from_bytes_and_from_a_file(tmp_path: Path) -> None:
    bundle = pack(b"library", A_MANIFEST)
    (tmp_path / "b.tar").write_bytes(bundle)
    manifest, library = read(bundle)
    assert library == b"library"
    assert manifest.model_copy(update={"digests": {}}) == A_MANIFEST
    assert read(tmp_path / "b.tar") == (manifest, library)


def test_equal_contents_give_equal_bytes() -> None:
    assert pack(b"library", A_MANIFEST) == pack(b"library", A_MANIFEST)


def test_a_library_that_was_changed_is_refused() -> None:
    manifest, _ = members_of(pack(b"library", A_MANIFEST))
    with pytest.raises(BundleInvalid, match=r"model\.so does not have the digest"):
        read(tar_of((MANIFEST, manifest), (LIBRARY, b"Library")))


@pytest.mark.parametrize(
    "names",
    [
        ("../../etc/cron.d/x", LIBRARY),
        (MANIFEST, "/model.so"),
        (LIBRARY, MANIFEST),
        (MANIFEST, MANIFEST),
        (MANIFEST, LIBRARY, "more"),
    ],
)
def test_other_members_are_refused(names: tuple[str, ...]) -> None:
    manifest, library = members_of(pack(b"library", A_MANIFEST))
    contents = {MANIFEST: manifest}
    with pytest.raises(BundleInvalid, match="This is no bundle: it holds"):
        read(tar_of(*((name, contents.get(name, library)) for name in names)))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_links_and_other_kinds_of_members_are_refused(kind: bytes) -> None:
    with pytest.raises(BundleInvalid, match="This is no bundle"):
        read(tar_of((MANIFEST, b""), kind=kind))


def test_a_huge_manifest_is_refused_before_it_is_read() -> None:
    with pytest.raises(BundleInvalid, match="at most 1048576 are accepted"):
        read(tar_of((MANIFEST, b" " * (2**20 + 1)), (LIBRARY, b"")))


def test_a_manifest_that_is_not_valid_is_refused_by_the_field() -> None:
    text = members_of(pack(b"library", A_MANIFEST))[0].replace(b'"small"', b'""')
    with pytest.raises(BundleInvalid, match="name: String should have at least 1 character"):
        read(tar_of((MANIFEST, text), (LIBRARY, b"library")))


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BundleInvalid, match="cannot be read: No such file or directory"):
        read(tmp_path / "absent.tar")


@given(st.integers(0, 3000))
def test_a_truncated_bundle_is_refused(length: int) -> None:
    with pytest.raises(BundleInvalid):
        read(pack(b"l" * 2000, A_MANIFEST)[:length])


@given(st.binary(max_size=2000))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BundleInvalid):
        read(data)


def test_importing_resonator_is_light_and_offers_load() -> None:
    code = (
        "import resonator, sys; light = not {'tvm', 'numpy', 'pydantic'} & set(sys.modules); "
        "assert light and callable(resonator.load)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
