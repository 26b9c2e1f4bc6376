"""Enrolment over real TLS: a box with a token gets a certificate for its own key, nobody else anything."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from resonator.errors import BusUnreachable, InputInvalid, Refused
from resonator.trust import Credentials, Party
from resonator.trust.enrolment import enrol, frame, read_frame
from resonator.trust.invitation import Invitation, parse
from resonator.trust.keys import make_place, write_identity
from resonator_hub.authority import Authority
from resonator_hub.authority.access import Access
from resonator_hub.authority.enrolling import Door

HOST = "127.0.0.1"
BOX = Party("device", "lab", "box")
HOUR = timedelta(hours=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Authority.create(tmp_path / "ca", "Test fleet", None)
    return tmp_path / "ca"


@pytest.fixture
async def port(folder: Path) -> AsyncIterator[int]:
    async with Door(Access(folder)).opened(HOST, 0) as port:
        yield port


def invited(folder: Path, site: str = "lab", uses: int = 1, life: timedelta = HOUR) -> Invitation:
    with Authority.open(folder, None) as authority:
        return parse(str(authority.invite(site, uses, life)))


async def test_enrol_with_a_token_gives_a_certificate_for_the_boxs_own_key(
    folder: Path, port: int, tmp_path: Path
) -> None:
    key, token = Ed25519PrivateKey.generate(), invited(folder)
    enrolled = await enrol(HOST, port, token, BOX, key)
    make_place(tmp_path / "box")
    write_identity(tmp_path / "box", key, enrolled.certificate, enrolled.authority)
    found = Credentials.load(tmp_path / "box")
    assert found.party == BOX
    assert found.context().verify_mode is ssl.CERT_REQUIRED  # raises where key and certificate do not fit
    assert token.secret not in (folder / "tokens.json").read_text()
    with Authority.open(folder, None) as authority:
        assert authority.users("device") == ["lab/dev/box"]


async def test_enrol_attack_with_a_token_that_is_used_up_expired_unknown_or_of_another_site(
    folder: Path, port: int
) -> None:
    async def refused(token: Invitation, party: Party, reason: str) -> None:
        with pytest.raises(Refused, match=reason):
            await enrol(HOST, port, token, party, Ed25519PrivateKey.generate())

    twice = invited(folder, uses=2)
    for name in ("one", "two"):
        await enrol(HOST, port, twice, Party("device", "lab", name), Ed25519PrivateKey.generate())
    await refused(twice, Party("device", "lab", "three"), "the token has been used already")
    await refused(invited(folder, life=-HOUR), BOX, "the token expired at")
    await refused(invited(folder, site="den"), BOX, "the token is for site den, not for lab")
    await refused(Invitation("lab", "x" * 22, twice.root), BOX, "not one of this authority")
    good = invited(folder)
    await refused(good, Party("device", "lab", "one"), "lab/dev/one has a valid certificate")
    await refused(good, Party("hub", "lab", "main"), "only devices are enrolled here")
    assert await enrol(HOST, port, good, BOX, Ed25519PrivateKey.generate()), (
        "what was refused uses nothing up"
    )


async def test_enrol_attack_by_somebody_who_poses_as_the_authority_learns_no_token(
    folder: Path, tmp_path: Path
) -> None:
    """He has another authority of his own, or a box's certificate of this very fleet."""
    token = invited(folder)
    Authority.create(tmp_path / "other", "Other fleet", None)
    with Authority.open(folder, None) as authority:
        authority.enrol(BOX, tmp_path / "box")
    async with Door(Access(tmp_path / "other")).opened(HOST, 0) as port:
        with pytest.raises(InputInvalid, match="is not the authority that the token names"):
            await enrol(HOST, port, token, BOX, Ed25519PrivateKey.generate())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "box/own.crt", tmp_path / "box/own.key")
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def pose(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame({"authority": (folder / "ca.crt").read_bytes()}))
        heard.put_nowait(await reader.read())
        writer.close()

    async with await asyncio.start_server(pose, HOST, 0, ssl=context) as server:
        with pytest.raises(InputInvalid, match="is not the authority that the token names"):
            await enrol(HOST, server.sockets[0].getsockname()[1], token, BOX, Ed25519PrivateKey.generate())
        assert await asyncio.wait_for(heard.get(), 10) == b""


async def test_enrol_attack_with_a_stolen_request_is_worth_nothing(folder: Path, port: int) -> None:
    """The certificate is for the key in the request alone; a request that was changed is refused."""
    key = Ed25519PrivateKey.generate()
    builder = x509.CertificateSigningRequestBuilder().subject_name(BOX.subject())
    request = bytearray(builder.sign(key, None).public_bytes(Encoding.DER))
    request[-1] ^= 1
    for asked, reason in (
        ({"secret": invited(folder).secret, "request": bytes(request)}, "is not signed by"),
        ({"secret": invited(folder).secret, "request": b"x"}, "cannot be read"),
        ({"secret": 7}, "a token and a signing request are wanted"),
    ):
        assert reason in str((await ask(port, frame(asked))).get("refused"))
    with pytest.raises(EOFError):
        await ask(port, (2**31).to_bytes(4, "big"))
    with pytest.raises(EOFError):
        await ask(port, b"\0\0\0\1\xc1")


async def ask(port: int, data: bytes) -> dict[str, object]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(HOST, port, ssl=context)
    try:
        await read_frame(reader)
        writer.write(data)
        return await asyncio.wait_for(read_frame(reader), 10)
    finally:
        writer.close()


async def test_enrol_says_when_nobody_answers(folder: Path) -> None:
    async with Door(Access(folder)).opened(HOST, 0) as port:
        pass
    with pytest.raises(BusUnreachable, match="no authority answers"):
        await enrol(HOST, port, invited(folder), BOX, Ed25519PrivateKey.generate())
