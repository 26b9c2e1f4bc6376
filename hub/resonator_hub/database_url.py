"""Where a database is: as it is written, as the driver wants it, and as it may be told to anybody."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from resonator.errors import InputInvalid

_ACCEPTED = "write postgresql://USER@HOST:PORT/NAME, or sqlite:///FILE"
_POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")


def read(text: str) -> URL:
    """Read a URL, and choose the driver. Raises InputInvalid, without a word of the password.

    PostgreSQL wants the extra `postgres` installed.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise InputInvalid(f"the database's URL cannot be read: {_ACCEPTED}") from None
    if url.drivername in _POSTGRES:
        if find_spec("psycopg") is None:
            raise InputInvalid(
                "PostgreSQL needs the extra 'postgres', which is not installed: "
                "pip install 'resonator[hub,postgres]'"
            )
        return url.set(drivername="postgresql+psycopg")
    if url.drivername == "sqlite" and url.database not in (None, "", ":memory:"):
        return url
    raise InputInvalid(f"a database of {url.drivername!r} is of no use to a hub: {_ACCEPTED}")


def shown(url: URL) -> str:
    """Return how a database is told in logs and sentences: without its password."""
    told = url.set(drivername=url.get_backend_name())
    return told.render_as_string(hide_password=True)


def of_file(path: Path) -> str:
    """Spell the URL of a SQLite file."""
    return URL.create("sqlite", database=str(path)).render_as_string()


def is_url(text: str) -> bool:
    """Whether a text names a database by URL, and not a file."""
    return "://" in text
