"""The tokens that an authority has given out: what is left of each, but never the secret itself."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from resonator.errors import InputInvalid, Refused
from resonator.jobspec import explain
from resonator.trust.invitation import Invitation


class Token(BaseModel):
    """How often a secret, known by its digest, is good for a box of a site, and until when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    site: str
    uses: Annotated[int, Field(ge=0, le=10_000)]
    expires: datetime


_TOKENS: TypeAdapter[tuple[Token, ...]] = TypeAdapter(tuple[Token, ...])


class Tokens:
    """The tokens of an authority, also those used up, so that their refusal can say why."""

    def __init__(self, tokens: tuple[Token, ...] = ()) -> None:
        self._tokens = {token.digest: token for token in tokens}

    @classmethod
    def read(cls, path: Path) -> Tokens:
        """Read the file, which need not be there yet; raises InputInvalid."""
        if not path.exists():
            return cls()
        try:
            return cls(_TOKENS.validate_json(path.read_bytes()))
        except ValidationError as error:
            raise InputInvalid(f"{path} is no list of tokens: {explain(error)}") from None

    def to_json(self) -> bytes:
        """Return what the file holds."""
        return _TOKENS.dump_json(tuple(self._tokens.values()), indent=2)

    def add(self, invitation: Invitation, uses: int, expires: datetime) -> None:
        """Note a token that was given out."""
        self._tokens[invitation.digest] = Token(
            digest=invitation.digest, site=invitation.site, uses=uses, expires=expires
        )

    def spend(self, digest: str, site: str, now: datetime) -> None:
        """Use a token for a box of a site; raises Refused."""
        token = self._tokens.get(digest)
        if token is None:
            raise Refused("the token is not one of this authority")
        if token.site != site:
            raise Refused(f"the token is for site {token.site}, not for {site}")
        if now >= token.expires:
            raise Refused(f"the token expired at {token.expires:%Y-%m-%d %H:%M} UTC")
        if not token.uses:
            raise Refused("the token has been used already")
        self._tokens[digest] = token.model_copy(update={"uses": token.uses - 1})
