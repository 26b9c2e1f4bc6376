"""A full disk ends a process with a sentence, and nothing else is taken for one."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest
import typer

from resonator.cli.exits import ExitCode, reported
from resonator_agent.outbox import Kept, Outbox


def test_an_outbox_on_a_full_disk_ends_the_agent_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given an outbox whose file may not grow, as SQLite itself sees a full disk
    outbox = Outbox(tmp_path / "outbox.sqlite")
    outbox._db.execute("PRAGMA max_page_count = 4")
    # When it is to keep a result
    with pytest.raises(typer.Exit) as ended, reported():
        outbox.add(Kept("id", "result", "1:c", bytes(100_000)))
    # Then nothing is kept, and there is a sentence and no traceback
    assert ended.value.exit_code == ExitCode.UNEXPECTED
    assert capsys.readouterr().err == "resonator: the disk cannot be written: database or disk is full\n"
    assert len(outbox) == 0
    outbox.close()


def test_a_file_that_cannot_be_written_for_want_of_room_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), reported():
        raise OSError(errno.ENOSPC, "No space left on device", "/state/agent.json")
    said = "resonator: the disk cannot be written at /state/agent.json: No space left on device\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "Permission denied"), sqlite3.OperationalError("no such table: outbox")]
)
def test_what_is_not_the_disk_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)), reported():
        raise error
