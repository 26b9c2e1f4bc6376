"""Log lines, for people and for machines."""

from __future__ import annotations

import json

import pytest
import structlog

from resonator.cli import logs


def test_json_logs_are_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", json=True)
    log = structlog.get_logger()
    log.info("window open", epoch=3)
    try:
        raise ValueError("no such core")
    except ValueError:
        log.exception("lost")
    opened, lost = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (opened["event"], opened["level"], opened["epoch"]) == ("window open", "info", 3)
    assert "ValueError: no such core" in lost["exception"]


def test_people_read_sentences_and_nothing_below_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning")
    log = structlog.get_logger()
    log.info("unseen")
    log.warning("a broker is lost")
    said = capsys.readouterr().err
    assert "a broker is lost" in said
    assert "unseen" not in said
