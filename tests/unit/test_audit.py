"""Trust in people afterwards: a journal tells who did what, and whether he signed it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from resonator.cli.main import make_app
from resonator.errors import InputInvalid
from resonator.ids import DeviceId, JobId
from resonator.jobspec import Measure, TargetSpec
from resonator_hub import audit
from resonator_hub.database import Database, sqlite_url
from resonator_hub.journal import Journal
from resonator_hub.rules import Rules
from resonator_hub.scheduler import events

BOX, JOB, BLOB = DeviceId("lab/box"), JobId("hers"), "f" * 64
ANN, OLGA = ("lab/client/ann", "submitter"), ("lab/client/olga", "operator")
ORDER = events.JobOrder("net", TargetSpec(kind="cpu"), trials=8, measure=Measure())
RULES = Rules("load_aware", 16, 60.0)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A state directory whose journal holds deeds among other things, the first of an older hub."""
    database = Database.open(sqlite_url(tmp_path / "hub.db"))
    journal = Journal(database)
    journal.append(events.HubStarted(1.0, 1))
    with database.transaction() as connection:
        old = {"at": 2.0, "job": "old", "by": "lab/eve"}
        connection.execute(
            text("INSERT INTO events (at, name, body) VALUES (2, 'JobCanceled', :body)"),
            {"body": json.dumps(old)},
        )
    deeds: list[events.Event] = [
        events.JobSubmitted(1000.0, JOB, ORDER, *ANN),
        events.DeviceSeen(1001.0, BOX, 1, 0, "cpu", (events.Offer("cpu", "{}"),)),
        events.DeviceDrained(1002.0, BOX, "it is moved", *OLGA),
        events.DeviceUndrained(1003.0, BOX, *OLGA),
        events.BlobFetched(1004.0, BLOB, JOB, *ANN),
        events.JobCanceled(1005.0, JOB, *ANN),
        events.PartyCertified(1006.0, "lab/dev/box", "1a"),
        events.PartyRevoked(1007.0, "lab/dev/box", "1a", "root"),
        events.Tick(1008.0),
    ]
    journal.append_all([(event, None) for event in deeds])
    yield tmp_path
    database.close()


def told(folder: Path, **how: str | float) -> list[tuple[str, str, str, str]]:
    found = audit.entries(folder, **how)  # type: ignore[arg-type]
    return [(entry.by, entry.role, entry.deed, entry.what) for entry in found]


def test_trust_everything_people_did_is_told_with_their_roles(folder: Path) -> None:
    assert told(folder) == [
        ("lab/eve", "", "canceled", "old"),
        (*ANN, "submitted", "hers"),
        (*OLGA, "drained", "lab/box"),
        (*OLGA, "undrained", "lab/box"),
        (*ANN, "fetched", "hers"),
        (*ANN, "canceled", "hers"),
        ("lab/dev/box", "authority", "was certified", "1a"),
        ("root", "authority", "revoked", "lab/dev/box"),
    ]


def test_trust_it_is_told_of_one_person_or_from_some_time_on(folder: Path) -> None:
    assert [deed for _, _, deed, _ in told(folder, who="olga")] == ["drained", "undrained"]
    assert [deed for _, _, deed, _ in told(folder, who="lab/client/olga", since=1003.0)] == ["undrained"]
    assert told(folder, who="vera") == []


def test_trust_deeds_fold_with_all_else_and_change_nothing_but_drained_devices(folder: Path) -> None:
    database = Database.read(folder / "hub.db")
    scheduler = RULES.scheduler()
    for event in Journal(database).events():
        scheduler.step(event)
    database.close()
    (report,) = scheduler.devices()
    assert report.drained is None
    told_of_it = ["DeviceSeen: idle", "DeviceDrained: idle", "DeviceUndrained: idle"]
    assert [line.partition(" ")[2] for line in scheduler.story(BOX)] == told_of_it


def test_trust_the_verb_prints_them(folder: Path) -> None:
    shown = CliRunner().invoke(make_app(), ["audit", str(folder)])
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert len(lines) == 9
    assert "lab/eve" in lines[1]
    assert "not signed" in lines[1]
    for part in ("lab/client/olga", "operator", "drained", "lab/box", "it is moved"):
        assert part in lines[3]


def test_trust_machines_read_them_line_by_line(folder: Path) -> None:
    arguments = ["audit", str(folder), "--json", "--who", "ann", "--since", "1970-01-01T00:00:00+00:00"]
    shown = CliRunner().invoke(make_app(), arguments)
    found = [json.loads(line) for line in shown.stdout.splitlines()]
    assert found[1] == {
        "at": 1004.0,
        "by": "lab/client/ann",
        "role": "submitter",
        "deed": "fetched",
        "what": "hers",
        "detail": BLOB,
        "signed": True,
    }


def test_an_empty_journal_says_so(tmp_path: Path) -> None:
    Database.open(sqlite_url(tmp_path / "hub.db")).close()
    shown = CliRunner().invoke(make_app(), ["audit", str(tmp_path)])
    assert shown.stdout == "nobody has done anything yet\n"


def test_a_moment_is_how_long_ago_or_when() -> None:
    assert audit.moment("2h", 10_000.0) == 2_800.0
    assert audit.moment("2026-11-21T10:00", 0.0) == datetime(2026, 11, 21, 10).timestamp()
    with pytest.raises(
        InputInvalid, match=r"--since 'lately' is no time: write how long ago \(30m, 2h, 7d\)"
    ):
        audit.moment("lately", 0.0)
