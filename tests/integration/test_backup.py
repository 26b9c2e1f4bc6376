"""What a hub knows is put aside while it works, and taken up again elsewhere: a job goes on from there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from typer.testing import CliRunner

from fakes.house import House
from fakes.postgres import Postgres, postgres
from resonator.bus.blobs import BlobStore
from resonator.cli.exits import ExitCode, code_of
from resonator.cli.main import make_app
from resonator.errors import InputInvalid, Refused
from resonator.messages import JobState, KernelResult, WindowGrant, WindowRefused
from resonator_hub.backup import back_up, restore
from resonator_hub.backup.places import Manifest, place
from resonator_hub.backup.rows import BackupDamaged
from resonator_hub.database import JOURNAL, Database, sqlite_url
from resonator_hub.journal import Journal
from resonator_hub.leadership import Leadership, origin
from resonator_hub.lock import StateLock
from resonator_hub.scheduler.events import HubStarted, Tick
from resonator_hub.tables import METADATA

TRIALS = 32


class Steps:
    """Notes how far a piece of work is."""

    def __init__(self) -> None:
        self.done: dict[str, list[int]] = {}
        self._what = ""

    def begin(self, what: str, total: int) -> None:
        self._what = what
        self.done[what] = [0, total]

    def advance(self, steps: int) -> None:
        self.done[self._what][0] += steps


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    (tmp_path / "hub").mkdir()
    made = House(tmp_path / "hub")
    listening = await made.device.start()
    yield made
    listening.cancel()
    await asyncio.wait({listening})


def put_aside(folder: Path, where: Path, url: str | None = None) -> Manifest:
    steps = Steps()
    with contextlib.closing(Database.read(url or folder)) as database, contextlib.closing(place(where)) as to:
        manifest = back_up(database, BlobStore(folder / "blobs"), to, steps)
    for done, total in steps.done.values():
        assert done == total
    return manifest


def take_up(where: Path, folder: Path, url: str | None = None, *, force: bool = False) -> None:
    with contextlib.closing(place(where)) as source:
        restore(source, folder, url, BlobStore(folder / "blobs"), Steps(), force=force)


def contents(at: Path | str) -> dict[str, list[Any]]:
    """Return every row of a database, but what tells one database from another."""
    with contextlib.closing(Database.read(at)) as database, database.transaction() as connection:
        return {
            table.name: [
                tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns))
            ]
            for table in METADATA.sorted_tables
            if table.name != "leadership"
        }


@pytest.mark.parametrize("name", ["aside", "aside.tar"])
async def test_a_job_goes_on_from_a_backup_that_was_made_while_it_ran(
    house: House, tmp_path: Path, name: str
) -> None:
    # Given a backup of a running hub that has gone on after it, until its disk was lost
    async with house.hub(killed=True):
        await house.submit(trials=TRIALS)
        await house.broker.wait_for(KernelResult, 3)
        house.device.paused.clear()
        manifest = put_aside(house.folder, tmp_path / name)
        house.device.paused.set()
        await house.broker.wait_for(KernelResult, 12)
    highest = house.device.epoch
    # When it is restored on another
    house.folder = tmp_path / "elsewhere"
    house.blobs = BlobStore(house.folder / "blobs")
    take_up(tmp_path / name, house.folder)
    async with house.hub():
        status = await house.ended()
    # Then the job ends with all its trials, in windows that no device has seen before
    assert (status.state, status.trials) == (JobState.SUCCEEDED, TRIALS), status.failure
    assert manifest.counts["jobs"] == 1
    grants = [sent.message for sent in house.broker.sent(WindowGrant)]
    assert max(grant.epoch for grant in grants if isinstance(grant, WindowGrant)) > highest
    with contextlib.closing(Database.read(house.folder)) as database:
        assert any(isinstance(event, HubStarted) for event in Journal(database).events())


async def test_a_device_that_has_seen_higher_epochs_than_an_old_backup_knows_is_won_back(
    house: House, tmp_path: Path
) -> None:
    async with house.hub():
        put_aside(house.folder, tmp_path / "old")
        await house.submit(trials=8)
        await house.ended()
    house.device.epoch += 1000
    take_up(tmp_path / "old", house.folder, force=True)
    async with house.hub():
        await house.submit(trials=8, job="another")
        status = await house.ended("another")
    assert status.state is JobState.SUCCEEDED, status.failure
    refused = [sent.message for sent in house.broker.sent(WindowRefused)]
    assert refused, "the restored hub begins where it was"
    assert house.device.epoch > 1000


async def test_databases_are_moved_from_one_kind_to_the_other_and_back(
    house: House, tmp_path: Path, server: Postgres
) -> None:
    async with house.hub():
        await house.submit(trials=8)
        await house.ended()
    url, other = server.fresh(), tmp_path / "other"
    put_aside(house.folder, tmp_path / "one.tar")
    take_up(tmp_path / "one.tar", tmp_path / "standby", url)
    before = contents(house.folder)
    assert contents(url) == before
    # The number of the next event is the next number.
    with contextlib.closing(Database.open(url)) as database:
        assert Journal(database).append(Tick(1e12)) == len(before["events"]) + 1
    shutil.copytree(house.folder / "blobs", other / "blobs")
    put_aside(other, tmp_path / "two", url)
    take_up(tmp_path / "two", other)
    assert contents(other)["records"] == before["records"]
    assert len(contents(other)["events"]) == len(before["events"]) + 1
    places = [Database.open(sqlite_url(folder / JOURNAL)) for folder in (house.folder, other)]
    assert len({origin(database) for database in places}) == 2, "a copy is another database"
    for database in places:
        database.close()


async def test_what_is_there_is_not_copied_again(house: House, tmp_path: Path) -> None:
    async with house.hub():
        await house.submit(trials=8)
        await house.ended()
        first = put_aside(house.folder, tmp_path / "aside")
        blobs = {path: path.stat().st_mtime_ns for path in (tmp_path / "aside").glob("blobs/??/*")}
        await house.submit(trials=16, job="another", again=True)
        await house.ended("another")
        second = put_aside(house.folder, tmp_path / "aside")
    assert {path.name for path in blobs} == set(first.blobs)
    assert len(set(first.blobs) & set(second.blobs)) > 10
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "aside").glob("blobs/??/*")}
    assert {path.name for path in kept} == set(second.blobs), "what nobody needs any more is gone"
    assert all(kept[path] == written for path, written in blobs.items() if path in kept)
    assert [path.name for path in (tmp_path / "aside").glob("rows-*")] == [f"rows-{second.rows[:16]}.gz"]


def begun(folder: Path) -> Path:
    """A hub's state directory in which something has happened."""
    folder.mkdir()
    with contextlib.closing(Database.open(sqlite_url(folder / JOURNAL))) as database:
        Journal(database).append(Tick(1.0))
        digest = BlobStore(folder / "blobs").put(b"a kernel")
        database.write(
            lambda connection: connection.execute(
                text("INSERT INTO kernels (kernel, arguments) VALUES (:kernel, '[]')"), {"kernel": digest}
            )
        )
    return folder


@pytest.mark.parametrize("name", ["aside", "aside.tar"])
def test_a_damaged_backup_leaves_everything_as_it_was(tmp_path: Path, name: str) -> None:
    folder, where = begun(tmp_path / "hub"), tmp_path / name
    manifest = put_aside(folder, where)
    before = contents(folder)
    blob = BlobStore(tmp_path / "x").path(manifest.blobs[0]).relative_to(tmp_path / "x")
    for damaged in (f"rows-{manifest.rows[:16]}.gz", f"blobs/{blob}"):
        twin = tmp_path / f"twin-{name}"
        spoil(where, twin, damaged)
        (folder / "blobs" / blob).unlink(missing_ok=True)
        with pytest.raises(BackupDamaged, match=r"(rows are|is) damaged$"):
            take_up(twin, folder, force=True)
        assert contents(folder) == before
    assert sorted(path.name for path in folder.iterdir()) == ["blobs", "hub.db", "hub.lock"]


def spoil(where: Path, twin: Path, name: str) -> None:
    """Copy a backup with one of its files changed in the middle."""
    unpacked = twin.with_name("unpacked")
    shutil.rmtree(unpacked, ignore_errors=True)
    if where.is_dir():
        shutil.copytree(where, unpacked)
    else:
        with tarfile.open(where) as archive:
            archive.extractall(unpacked)
    data = bytearray((unpacked / name).read_bytes())
    data[len(data) // 2] ^= 1
    (unpacked / name).write_bytes(data)
    shutil.rmtree(twin, ignore_errors=True)
    if where.is_dir():
        unpacked.rename(twin)
    else:
        with tarfile.open(twin, "w") as archive:
            for path in filter(Path.is_file, unpacked.rglob("*")):
                archive.add(path, arcname=str(path.relative_to(unpacked)))


def test_nothing_is_replaced_that_is_in_use_or_holds_something(tmp_path: Path, server: Postgres) -> None:
    folder, where = begun(tmp_path / "hub"), tmp_path / "aside"
    put_aside(folder, where)
    with pytest.raises(InputInvalid, match=r"hub\.db holds 1 events already: with --force they are replaced"):
        take_up(where, folder)
    lock = StateLock(folder)
    with pytest.raises(InputInvalid, match="in use by another hub"):
        take_up(where, folder, force=True)
    lock.release()
    take_up(where, folder, force=True)

    url = server.fresh()
    take_up(where, tmp_path / "here", url)
    with pytest.raises(InputInvalid, match="holds 1 events already"):
        take_up(where, tmp_path / "here", url)
    with contextlib.closing(Database.open(url)) as database:
        leader = Leadership(database, "the leader")
        assert leader.attempt()
        with pytest.raises(Refused, match=r"the leader leads .*: stop that hub, and its standbys") as refused:
            take_up(where, tmp_path / "here", url, force=True)
        assert code_of(refused.value) is ExitCode.REFUSED
        leader.close()
    take_up(where, tmp_path / "here", url, force=True)
    assert contents(url) == contents(folder)


def test_what_is_no_backup_or_of_a_later_version_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputInvalid, match=r"nothing is no backup: No such file or directory"):
        take_up(tmp_path / "nothing", tmp_path / "hub")
    (tmp_path / "letter.tar").write_text("Dear hub")
    with pytest.raises(InputInvalid, match=r"letter\.tar is no backup"):
        take_up(tmp_path / "letter.tar", tmp_path / "hub")
    folder = begun(tmp_path / "begun")
    put_aside(folder, tmp_path / "aside")
    manifest = tmp_path / "aside" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "revision": "9999"}))
    with pytest.raises(InputInvalid, match=r"made by a later version of the hub \(its tables are 9999\)"):
        take_up(tmp_path / "aside", tmp_path / "hub")
    assert not (tmp_path / "hub" / JOURNAL).exists()


def test_the_verbs(tmp_path: Path) -> None:
    folder, where = begun(tmp_path / "hub"), str(tmp_path / "aside.tar")
    made = CliRunner().invoke(make_app(), ["backup", where, "--state", str(folder)])
    assert made.exit_code == 0, made.output
    assert "hub.db is put aside in" in made.stdout.replace("\n", "")
    assert "2 rows and 1 blobs of 20" in made.stdout.replace("\n", " ")
    state = ["--state", str(tmp_path / "new")]
    restored = CliRunner().invoke(make_app(), ["restore", where, *state, "--json"])
    assert restored.exit_code == 0, restored.output
    said = json.loads(restored.stdout)
    assert (said["counts"]["events"], said["blobs"]) == (1, 1)
    assert contents(tmp_path / "new") == contents(folder)
    again = CliRunner().invoke(make_app(), ["restore", where, *state])
    assert again.exit_code == ExitCode.BAD_INPUT
