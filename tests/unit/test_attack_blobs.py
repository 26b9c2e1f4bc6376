"""Blobs that unfold to more than they are worth, by whichever door they come."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
import zlib

import pytest

from fakes.compute import FakeCompute
from resonator import bundle
from resonator.bus.blobs import digest_of
from resonator.errors import MessageInvalid
from resonator.messages import MAX_INLINE, BlobRef
from resonator_hub import inline
from resonator_hub.frontends import ModelInvalid
from resonator_hub.jobs.reception import Reception

MIB = 2**20


def test_what_rides_along_comes_back() -> None:
    data = bytes(MAX_INLINE)
    assert inline.unpack(BlobRef(digest=digest_of(data), size=len(data), data=zlib.compress(data))) == data


@pytest.mark.parametrize("said", [10, MAX_INLINE, 2**31])
def test_attack_by_compressed_zeros_that_ride_along(said: int) -> None:
    packed = zlib.compress(bytes(128 * MIB), 1)
    ref = BlobRef(digest="0" * 64, size=said, data=packed)
    tracemalloc.start()
    try:
        with pytest.raises(MessageInvalid, match=r"another size or digest|at most 1048576 may"):
            inline.unpack(ref)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


def test_attack_by_a_model_that_is_too_large_is_refused_before_it_is_fetched() -> None:
    reception = Reception(FakeCompute(), max_model=1000)
    reception.weigh(1000, bench=False)
    with pytest.raises(ModelInvalid, match="The model has 1001 bytes; at most 1000 are accepted"):
        reception.weigh(1001, bench=False)
    reception.weigh(1001, bench=True)
    with pytest.raises(ModelInvalid, match=f"The bundle has {2**40} bytes; at most"):
        reception.weigh(2**40, bench=True)


def sparse_bundle(size: int) -> bytes:
    """A tar file whose library is a hole of `size` bytes."""
    manifest = bundle.Manifest(name="m", target="llvm", inputs=(), outputs=())
    whole = bytearray(bundle.pack(b"library", manifest))
    start = whole.rindex(bundle.LIBRARY.encode() + bytes(8))
    member = tarfile.TarInfo.frombuf(bytes(whole[start : start + 512]), "utf-8", "strict")
    member.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(whole[:start] + header + whole[start + 512 :])


def test_attack_by_a_bundle_with_a_hole() -> None:
    data = sparse_bundle(2**31)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getmember(bundle.LIBRARY).size == 2**31
    tracemalloc.start()
    try:
        with pytest.raises(bundle.BundleInvalid, match="This is no bundle"):
            bundle.read(data)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE])
def test_attack_by_a_bundle_of_headers_of_headers(kind: bytes) -> None:
    header = tarfile.TarInfo("x")
    header.type = kind
    data = header.tobuf(tarfile.USTAR_FORMAT) * 10_000
    with pytest.raises(bundle.BundleInvalid, match="This is no bundle"):
        bundle.read(data)


def test_attack_by_a_library_that_is_said_to_be_larger_than_the_file() -> None:
    manifest = bundle.Manifest(name="m", target="llvm", inputs=(), outputs=())
    whole = bytearray(bundle.pack(b"library", manifest))
    start = whole.rindex(bundle.LIBRARY.encode() + bytes(8))
    member = tarfile.TarInfo.frombuf(bytes(whole[start : start + 512]), "utf-8", "strict")
    member.size = 2**31
    whole[start : start + 512] = member.tobuf(tarfile.USTAR_FORMAT)
    with pytest.raises(bundle.BundleInvalid, match=r"truncated inside model\.so"):
        bundle.read(bytes(whole))
