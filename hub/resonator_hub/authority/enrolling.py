"""The authority's door: a TLS listener at which boxes with a token get a certificate, and nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from resonator.errors import InputInvalid, ResonatorError
from resonator.ids import device_id
from resonator.trust.credentials import AUTHORITY, CERTIFICATE, KEY
from resonator.trust.enrolment import frame, read_frame
from resonator.trust.keys import read_request
from resonator_hub.authority.access import Access

log = structlog.get_logger(__name__)

PATIENCE_S = 10.0
"""How long somebody may take to say what he wants."""
MOST = 64
"""How many may be at the door at once."""


class Door:
    """Answers one box after the other, for an authority that is opened for each."""

    def __init__(self, authority: Access) -> None:
        self._authority = authority
        self._hello = frame({"authority": (authority.folder / AUTHORITY).read_bytes()})
        self._present = 0

    @asynccontextmanager
    async def opened(self, host: str, port: int) -> AsyncIterator[int]:
        """Listen at an address and yield the port, a free one for 0; raises InputInvalid where one cannot."""
        try:
            server = await asyncio.start_server(self._serve, host, port, ssl=self._tls())
        except OSError as error:
            raise InputInvalid(f"{host}:{port} cannot be listened at: {error.strerror}") from None
        async with server:
            yield int(server.sockets[0].getsockname()[1])

    def _tls(self) -> ssl.SSLContext:
        """Return a context with a key of this process's own, which the authority vouches for."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        with (
            tempfile.TemporaryDirectory(dir=self._authority.folder) as name,
            self._authority.opened() as authority,
        ):
            authority.introduce(Path(name))
            context.load_cert_chain(Path(name, CERTIFICATE), Path(name, KEY))
        return context

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._present += 1
        try:
            if self._present <= MOST:
                writer.write(self._hello)
                asked = await asyncio.wait_for(read_frame(reader), PATIENCE_S)
                writer.write(frame(self._answer(asked)))
                await asyncio.wait_for(writer.drain(), PATIENCE_S)
        except (OSError, EOFError, asyncio.TimeoutError) as error:
            log.warning("somebody left the door without a certificate", reason=str(error))
        finally:
            self._present -= 1
            writer.close()

    def _answer(self, asked: dict[str, object]) -> dict[str, object]:
        secret, request = asked.get("secret"), asked.get("request")
        if not isinstance(secret, str) or not isinstance(request, bytes):
            return {"refused": "a token and a signing request are wanted"}
        try:
            return {"certificate": self._enrol(secret, request)}
        except ResonatorError as error:
            log.warning("a box was not enrolled", reason=str(error))
            return {"refused": str(error)}

    def _enrol(self, secret: str, data: bytes) -> bytes:
        party, key = read_request(data)
        if party.role != "device":
            raise InputInvalid(f"only devices are enrolled here, no {party.role}")
        digest = hashlib.sha256(secret.encode()).hexdigest()
        with self._authority.opened() as authority:
            certificate = authority.admit(digest, party, key)
        log.info("a box was enrolled", device=device_id(party.site, party.name))
        return certificate
