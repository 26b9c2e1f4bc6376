"""What an agent remembers between its lives."""

from __future__ import annotations

from pathlib import Path

import pytest

from resonator.errors import InputInvalid
from resonator_agent.memory import Memory


def test_sessions_grow_with_every_life_and_follow_a_clock_that_runs_ahead(tmp_path: Path) -> None:
    sessions = []
    for wall_clock in (1000.5, 10.0, 5000.0):
        memory = Memory(tmp_path)
        sessions.append(memory.next_session(wall_clock))
        memory.release()

    assert sessions == [1000, 1001, 5000]


def test_an_open_window_is_known_in_the_next_life(tmp_path: Path) -> None:
    first = Memory(tmp_path)
    first.store_window(7, "job")
    first.release()
    second = Memory(tmp_path)

    assert (second.epoch, second.interrupted) == (7, (7, "job"))
    second.store_window(7, None)
    assert second.interrupted is None
    second.release()


def test_a_directory_is_for_one_agent_at_a_time(tmp_path: Path) -> None:
    holder = Memory(tmp_path)

    with pytest.raises(InputInvalid, match="another agent is using the state directory"):
        Memory(tmp_path)
    holder.release()


def test_a_damaged_memory_is_not_guessed_at(tmp_path: Path) -> None:
    (tmp_path / "agent.json").write_text("{")

    with pytest.raises(InputInvalid, match=r"agent\.json is damaged"):
        Memory(tmp_path)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(InputInvalid, match="file/state cannot be used"):
        Memory(tmp_path / "file" / "state")
