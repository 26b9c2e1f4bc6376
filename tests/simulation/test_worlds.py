"""Whole fleets in simulated worlds in which much goes wrong; `make simulate` runs as many as one likes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from resonator_agent.memory import Memory
from resonator_agent.outbox import Outbox
from resonator_hub.fleet import Acks
from simulation.world.__main__ import main
from simulation.world.faults import MOMENTS, draw
from simulation.world.fleet import Outcome, design, run
from simulation.world.shrink import shrink, story

TESTS = Path(__file__).parents[1]
SEEDS = 80
CHUNK = 20


@pytest.mark.parametrize("first", range(1, SEEDS + 1, CHUNK))
def test_in_rough_worlds_no_guarantee_is_broken(first: int) -> None:
    for seed in range(first, first + CHUNK):
        outcome = run(seed)
        assert not outcome.violations, story(outcome)
        assert outcome.messages > 0


def test_a_seed_replays_exactly_in_another_process_too() -> None:
    here = [run(seed).digest for seed in (3, 4, 3)]
    assert here[0] == here[2] != here[1]
    told = subprocess.run(
        [sys.executable, "-m", "simulation.world", "--seed", "3"],
        cwd=TESTS,
        env={**os.environ, "PYTHONHASHSEED": "4321"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.splitlines()[-1] == f"digest {here[0]}"


def test_faults_of_every_kind_are_drawn() -> None:
    drawn = [fault for seed in range(400) for fault in design(seed).plan]
    kinds = {fault.kind for fault in drawn}
    moments = {fault.moment for fault in drawn}
    assert {"kill", "stop", "full", "clock", "mischief", "cut site", "short queue", "another hub"} <= kinds
    assert {moment for moments in MOMENTS.values() for moment in moments} <= moments
    assert draw.__doc__


def failing(seeds: range) -> Outcome:
    """Return the first world that fails."""
    return next(outcome for seed in seeds if (outcome := run(seed)).violations)


def forgetful(_outbox: Outbox, _kept: object) -> int:
    """An outbox that keeps nothing."""
    return 0


def careless(acks: Acks, _taken: object, device: Any, message_id: str) -> None:
    """The hub acknowledges what is not on its disk yet."""
    acks.send(device, message_id)


def fenceless(memory: Memory, epoch: int, job: str | None) -> None:
    """A box remembers windows only for as long as its agent lives."""
    memory._memory.epoch, memory._memory.open_job = epoch, job


@pytest.mark.parametrize(
    ("where", "name", "bug", "sign"),
    [
        (Acks, "send_when", careless, "was acknowledged, but is in no journal"),
        (Memory, "store_window", fenceless, "opens after"),
    ],
)
def test_a_planted_bug_is_found_and_told_in_few_faults(
    where: type, name: str, bug: Callable[..., Any], sign: str
) -> None:
    with patch.object(where, name, bug):
        failed = failing(range(1, 200))
        shortest = shrink(failed, tell=lambda _: None)
    assert any(sign in violation for violation in failed.violations)
    assert len(shortest.plan) <= min(2, len(failed.plan))
    told = story(shortest)
    assert f"seed {failed.seed} fails" in told
    assert "VIOLATION" in told


def test_the_command_tells_how_many_fleets_were_clean(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--first", "5", "--seeds", "2"]) == 0
    assert "2 of 2 fleets clean" in capsys.readouterr().out
