"""What the outbox keeps, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from resonator_agent.outbox import Kept, Outbox


def kept(number: int, subject: str = "") -> Kept:
    return Kept(f"id{number}", "result", subject, bytes([number]))


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(tmp_path / "outbox.sqlite", most=5)
    yield made
    made.close()


def test_messages_stay_in_order_until_they_are_acknowledged(outbox: Outbox) -> None:
    for number in (3, 1, 2):
        outbox.add(kept(number))

    assert outbox.acknowledge(["id1", "unknown"]) == 1
    assert outbox.pending() == [kept(3), kept(2)]


def test_a_message_is_kept_once(outbox: Outbox) -> None:
    outbox.add(kept(1))
    outbox.add(kept(1))

    assert len(outbox) == 1


def test_the_oldest_give_way_when_it_is_full(outbox: Outbox) -> None:
    dropped = [outbox.add(kept(number)) for number in range(7)]

    assert dropped == [0, 0, 0, 0, 0, 1, 1]
    assert [each.id for each in outbox.pending()] == [f"id{number}" for number in range(2, 7)]


def test_what_is_pending_is_found_by_its_subject(outbox: Outbox) -> None:
    outbox.add(kept(1, "1:a"))
    outbox.add(kept(2, "1:b"))

    assert outbox.about("1:b") == [kept(2, "1:b")]


def test_what_was_added_is_there_for_the_next_life(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    # Not closed: a killed agent does not say goodbye to its files either.
    first = Outbox(path)
    first.add(kept(1))
    second = Outbox(path)

    assert second.pending() == [kept(1)]
    first.close()
    second.close()


def test_a_damaged_file_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(b"noise" * 1000)

    outbox = Outbox(path)
    outbox.add(kept(1))

    assert outbox.pending() == [kept(1)]
    assert (tmp_path / "outbox.sqlite.damaged").read_bytes() == b"noise" * 1000
    outbox.close()
