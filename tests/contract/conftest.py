"""The databases that a hub may keep what it knows in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.postgres import Postgres, postgres
from resonator_hub.database import Database, sqlite_url
from resonator_hub.leadership import Leadership


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "hub.db")
    server: Postgres = request.getfixturevalue("server")
    return server.fresh()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """A database as a hub has it: its own file, or one that is shared and led."""
    database = Database.open(url)
    leadership = None if database.own else Leadership(database)
    assert leadership is None or leadership.attempt()
    yield database
    if leadership is not None:
        leadership.close()
    database.close()
