"""What an examination found."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Level = Literal["ok", "warning", "failed"]


class Finding(BaseModel):
    """One thing that was looked at: `says` is what was found, `advice` what to do where that is not well."""

    model_config = ConfigDict(frozen=True)

    check: str
    level: Level
    says: str
    advice: str = ""


def ok(check: str, says: str) -> Finding:
    """All is well."""
    return Finding(check=check, level="ok", says=says)


def warning(check: str, says: str, advice: str) -> Finding:
    """It works, but not as it should, or not for long."""
    return Finding(check=check, level="warning", says=says, advice=advice)


def failed(check: str, says: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(check=check, level="failed", says=says, advice=advice)
