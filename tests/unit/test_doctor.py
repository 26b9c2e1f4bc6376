"""What `resonator doctor` finds in disks, clocks, identities, databases and boxes, with each broken."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest

from fakes.fleet_authority import ANN, BOX, OTHER, Fleet
from fakes.postgres import Postgres, postgres
from resonator.doctor import Examination, Finding, Where, examine, ok
from resonator.doctor.clock import APART_S, BUILT, TOO_FAR_S, kernel_synchronised, look_at_clock
from resonator.doctor.disk import look_at_disk
from resonator.doctor.identity import look_at_identity
from resonator.errors import InputInvalid
from resonator.sandbox import LANDLOCK, SECCOMP
from resonator.settings import ClientSettings
from resonator.trust.credentials import AUTHORITY, KEY, REVOCATIONS
from resonator_agent import doctor as box
from resonator_agent.outbox import Kept, Outbox
from resonator_hub import doctor as hub
from resonator_hub.database import JOURNAL, Database, sqlite_url
from resonator_hub.leadership import Leadership
from resonator_hub.watch.vitals import Vitals

NOW = datetime.now(timezone.utc)
YEAR = datetime(2026, 11, 21, tzinfo=timezone.utc).timestamp()


def only(findings: list[Finding]) -> tuple[str, str]:
    """Return level and words of the only finding; whatever is not well has advice."""
    (finding,) = findings
    assert bool(finding.advice) == (finding.level != "ok")
    return finding.level, finding.says


# --- examinations -----------------------------------------------------------------------------------------


def test_what_hangs_or_breaks_costs_its_own_finding_alone() -> None:
    release = threading.Event()

    def hangs() -> list[Finding]:
        release.wait()
        return []

    def refuses() -> list[Finding]:
        raise InputInvalid("the file is not there")

    def breaks() -> list[Finding]:
        raise KeyError("oh")

    looks = {"hung": hangs, "refused": refuses, "broken": breaks, "fine": lambda: [ok("fine", "all is well")]}
    found = examine([Examination(name, look) for name, look in looks.items()], timeout=-1.9)
    release.set()
    assert [(one.check, one.level) for one in found] == [
        ("hung", "failed"),
        ("refused", "failed"),
        ("broken", "failed"),
        ("fine", "ok"),
    ]
    assert "no answer" in found[0].says
    assert found[1].says == "the file is not there"


# --- disks ------------------------------------------------------------------------------------------------


def test_a_disk_with_room_is_well_and_nothing_is_left_on_it(tmp_path: Path) -> None:
    level, says = only(look_at_disk("disk", tmp_path))
    assert level in {"ok", "warning"}  # how fast it is, is not the test's affair
    assert "GiB free" in says
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "level", "says"),
    [
        ({"f_bavail": 10}, "failed", "0.0 GiB free"),
        ({"f_bavail": 300_000}, "warning", "1.1 GiB free"),
        ({"f_favail": 20}, "warning", "room for 20 more files"),
        ({"f_files": 0, "f_favail": 0}, "ok", "9.5 GiB free"),
    ],
)
def test_a_disk_that_fills_up_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, int], level: str, says: str
) -> None:
    space = {"f_bavail": 2_500_000, "f_frsize": 4096, "f_files": 10**6, "f_favail": 10**6}
    monkeypatch.setattr(os, "statvfs", lambda _folder: SimpleNamespace(**{**space, **changes}))
    monkeypatch.setattr("resonator.doctor.disk._sync", lambda _folder: 0.001)
    found = only(look_at_disk("disk", tmp_path))
    assert found[0] == level
    assert says in found[1]


def test_a_slow_disk_one_that_takes_nothing_and_none_at_all_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert only(look_at_disk("disk", tmp_path / "none")) == ("failed", f"{tmp_path / 'none'} is not there")
    assert only(look_at_disk("disk", Path("/proc")))[0] == "failed"
    monkeypatch.setattr("resonator.doctor.disk._sync", lambda _folder: 0.3)
    monkeypatch.setattr("resonator.doctor.disk.FEW_BYTES", 0)
    monkeypatch.setattr("resonator.doctor.disk.LEAST_BYTES", 0)
    level, says = only(look_at_disk("disk", tmp_path))
    assert (level, "takes 300 ms" in says) == ("warning", True)


# --- clocks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "jumped_s", "ahead_s", "synchronised", "level", "says"),
    [
        (YEAR, 0.0, 0.01, True, "ok", "within 0.1 s of the hub's"),
        (YEAR, 0.0, None, None, "ok", "it says 2026-11-21"),
        (BUILT - 1, 0.0, None, True, "failed", "which cannot be"),
        (YEAR, 0.0, TOO_FAR_S + 1, True, "failed", "10 minutes ahead of the hub's"),
        (YEAR, 0.0, -TOO_FAR_S - 1, True, "failed", "10 minutes behind the hub's"),
        (YEAR, 0.0, APART_S + 5, True, "warning", "35 s ahead of the hub's"),
        (YEAR, -3.0, None, True, "warning", "set by -3.0 s"),
        (YEAR, 0.0, 0.0, False, "warning", "nothing keeps it right"),
    ],
)
def test_a_clock_is_judged(
    now: float, jumped_s: float, ahead_s: float | None, synchronised: bool | None, level: str, says: str
) -> None:
    found = only([look_at_clock(now, jumped_s, ahead_s, synchronised=synchronised)])
    assert found[0] == level
    assert says in found[1]


def test_the_kernel_is_asked_and_nothing_is_set() -> None:
    assert kernel_synchronised() in {True, False, None}


# --- identities -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("fleet"))


@pytest.fixture
def identity(fleet: Fleet, tmp_path: Path) -> Path:
    """A copy of a box's identity, to be spoilt."""
    return Path(shutil.copytree(fleet.place(BOX), tmp_path / "identity"))


def test_a_whole_identity_is_well_for_how_long(identity: Path) -> None:
    level, says = only(look_at_identity(identity, BOX))
    assert (level, says) == ("ok", "lab/dev/box (device), valid for 90 more days")


@pytest.mark.parametrize(
    ("after", "level", "says", "advice"),
    [
        (timedelta(days=-1), "failed", "is valid from", "clock"),
        (timedelta(days=61), "warning", "should have been renewed", "enrol this box again"),
        (timedelta(days=91), "failed", "has expired", "enrol this box again"),
    ],
)
def test_an_identity_is_valid_for_a_time(
    identity: Path, after: timedelta, level: str, says: str, advice: str
) -> None:
    (found,) = look_at_identity(identity, BOX, now=NOW + after)
    assert found.level == level
    assert says in found.says
    assert advice in found.advice


def test_people_are_told_how_theirs_is_renewed(fleet: Fleet) -> None:
    (found,) = look_at_identity(fleet.place(ANN), now=NOW + timedelta(days=91))
    assert "resonator ca renew lab/client/ann" in found.advice


def test_an_authority_that_ends_is_told_as_well(identity: Path) -> None:
    findings = look_at_identity(identity, BOX, now=NOW + timedelta(days=365 * 40))
    assert [finding.level for finding in findings] == ["failed", "failed"]
    assert "the fleet's authority" in findings[1].says


def test_an_identity_that_is_not_whole_not_private_or_anothers_is_told(identity: Path, fleet: Fleet) -> None:
    assert "not of lab/dev/other" in only(look_at_identity(identity, OTHER))[1]
    (identity / KEY).chmod(0o644)
    assert "can be read by others" in only(look_at_identity(identity, BOX))[1]
    (identity / KEY).unlink()
    assert "is missing" in only(look_at_identity(identity, BOX))[1]
    shutil.copy(fleet.place(OTHER) / KEY, identity / KEY)
    assert "do not fit" in only(look_at_identity(identity, BOX))[1]


def test_a_certificate_of_another_fleet_is_told(identity: Path, tmp_path: Path) -> None:
    stranger = Fleet(tmp_path / "stranger")
    shutil.copy(stranger.place(BOX) / AUTHORITY, identity / AUTHORITY)
    assert "was not issued by the authority" in only(look_at_identity(identity, BOX))[1]


def test_a_revoked_certificate_is_told(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.revoke(BOX)
    shutil.copy(fleet.folder / REVOCATIONS, fleet.place(BOX) / REVOCATIONS)
    assert only(look_at_identity(fleet.place(BOX), BOX)) == (
        "failed",
        "the certificate of lab/dev/box was revoked",
    )


# --- databases --------------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A hub's state directory; the hub has gone."""
    Database.open(sqlite_url(tmp_path / JOURNAL)).close()
    return tmp_path


def execute(state: Path, statement: str) -> None:
    with sqlite3.connect(state / JOURNAL) as connection:
        connection.execute(statement)
    connection.close()


def test_a_database_is_well_whether_or_not_its_hub_runs(state: Path) -> None:
    assert only(hub.look_at_sqlite(state / JOURNAL, 5.0))[0] == "ok"
    running = Database.open(sqlite_url(state / JOURNAL))
    with running.transaction():
        assert only(hub.look_at_sqlite(state / JOURNAL, 5.0))[0] == "ok"
    running.close()


def test_a_database_of_another_version_is_told(state: Path) -> None:
    execute(state, "UPDATE alembic_version SET version_num = '0001'")
    level, says = only(hub.look_at_sqlite(state / JOURNAL, 5.0))
    assert (level, "tables of version 0001" in says) == ("warning", True)
    execute(state, "UPDATE alembic_version SET version_num = '9999'")
    level, says = only(hub.look_at_sqlite(state / JOURNAL, 5.0))
    assert (level, "knows nothing" in says) == ("failed", True)


def test_a_database_that_is_damaged_none_or_not_there_is_told(state: Path) -> None:
    assert only(hub.look_at_sqlite(state / "other.db", 5.0))[0] == "warning"
    (state / "other.db").write_bytes(b"no database" * 1000)
    assert "cannot be read" in only(hub.look_at_sqlite(state / "other.db", 5.0))[1]
    data = bytearray((state / JOURNAL).read_bytes())
    data[4096 * 3 :] = os.urandom(len(data) - 4096 * 3)
    (state / JOURNAL).write_bytes(data)
    assert only(hub.look_at_sqlite(state / JOURNAL, 5.0))[0] == "failed"


def test_a_database_too_large_for_the_time_is_told(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_sound", lambda _connection: None)
    assert only(hub.look_at_sqlite(state / JOURNAL, 5.0))[0] == "warning"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


def test_a_shared_database_is_well_read_only_or_not_there(server: Postgres) -> None:
    url = server.fresh()
    Database.open(url).close()
    assert only(hub.look_at_database(url, 5.0))[0] == "ok"
    level, says = only(hub.look_at_database(f"{url}?options=-cdefault_transaction_read_only%3Don", 5.0))
    assert (level, "may be read only" in says) == ("failed", True)
    level, says = only(hub.look_at_database(server.url("nowhere"), 5.0))
    assert (level, "cannot be used" in says) == ("failed", True)
    assert only(hub.look_at_database("mysql://here/it", 5.0))[0] == "failed"


async def test_a_hub_that_leads_finds_its_shared_database_writable(server: Postgres, tmp_path: Path) -> None:
    database = Database.open(server.fresh())
    leadership = Leadership(database)
    assert leadership.attempt()
    vitals = Vitals(database, tmp_path)
    await vitals.look()
    assert vitals.signs.trouble == ""
    assert (vitals.signs.database_bytes or 0) > 0
    leadership.close()
    database.close()


def test_only_a_hub_that_is_here_is_looked_at(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESONATOR_STATE", str(state / "none"))
    where = Where(ClientSettings(), 5.0)
    assert hub.examinations(where) == []
    named = hub.examinations(Where(ClientSettings(), 5.0, hub=state))
    assert [one.name for one in named] == ["hub disk", "hub database", "hub cores"]
    assert {finding.level for finding in examine(named, 5.0)} <= {"ok", "warning"}


def test_settings_that_are_wrong_are_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESONATOR_BATCH", "1")
    found = examine(hub.examinations(Where(ClientSettings(), 5.0, hub=tmp_path)), 5.0)
    assert [finding.check for finding in found] == ["hub settings"]
    assert "batch" in found[0].says


# --- boxes ------------------------------------------------------------------------------------------------


def test_what_confines_kernels_is_told() -> None:
    assert only(box.look_at_sandbox((LANDLOCK, SECCOMP)))[0] == "ok"
    level, says = only(box.look_at_sandbox((SECCOMP,)))
    assert (level, says) == ("warning", "this Linux confines what is measured by seccomp")


def test_sensors_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    level, says = only(box.look_at_sensors(tmp_path))
    assert (level, says) == ("warning", "temperature, clock frequency, load cannot be read here")
    core = min(os.sched_getaffinity(0))
    for path, text in {
        "sys/class/thermal/thermal_zone0/temp": "41000",
        f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq": "1500000",
        "proc/stat": f"cpu{core} 1 2 3 4 5 6 7 8 9 10\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert only(box.look_at_sensors(tmp_path)) == ("ok", "41 °C at 1.50 GHz; the load of others can be read")


def test_results_that_wait_and_an_outbox_that_is_damaged_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "outbox.sqlite"
    assert only(box.look_at_outbox(path))[0] == "ok"
    outbox = Outbox(path)
    for number in range(3):
        outbox.add(Kept(f"id{number}", "result", "1:c", b"payload"))
    assert only(box.look_at_outbox(path)) == ("ok", "3 results wait for the hub")
    monkeypatch.setattr(box, "MANY_RESULTS", 2)
    assert only(box.look_at_outbox(path))[0] == "warning"
    outbox.close()
    path.write_bytes(b"no database" * 1000)
    assert only(box.look_at_outbox(path))[0] == "failed"


def test_only_a_box_that_is_here_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert box.examinations(Where(ClientSettings(), 5.0)) == []
    home = tmp_path / "resonator" / "agents" / "lab" / "box"
    home.mkdir(parents=True)
    names = [one.name for one in box.examinations(Where(ClientSettings(), 5.0))]
    assert names == ["box cores", "box sandbox", "box sensors", "box runtime", "box disk", "box outbox"]
    found = examine(box.examinations(Where(ClientSettings(), 5.0, agent=home)), 5.0)
    assert {finding.level for finding in found} <= {"ok", "warning"}
