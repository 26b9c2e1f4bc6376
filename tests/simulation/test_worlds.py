"""Whole fleets in simulated worlds in which much goes wrong; `make simulate` runs as many as one likes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from resonator.ids import DeviceId
from resonator_hub.fleet import Acks
from simulation.world.__main__ import main
from simulation.world.faults import MOMENTS
from simulation.world.fleet import design, run
from simulation.world.shrink import shrink, story

TESTS = Path(__file__).parents[1]
SEEDS = 40
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


def test_a_planted_bug_is_found_and_told_in_few_faults() -> None:
    def careless(acks: Acks, _taken: object, device: DeviceId, message_id: str) -> None:
        acks.send(device, message_id)  # whether or not the result is on the hub's disk

    with patch.object(Acks, "send_when", careless):
        failed = next(outcome for seed in range(9, 200) if (outcome := run(seed)).violations)
        shortest = shrink(failed, tell=lambda _: None)
    assert "was acknowledged, but is in no journal" in shortest.violations[0]
    assert len(shortest.plan) < len(failed.plan)
    assert f"seed {failed.seed} fails" in story(shortest)
    assert run(failed.seed).violations == ()


def test_the_command_tells_how_many_fleets_were_clean(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--first", "5", "--seeds", "2"]) == 0
    assert "2 of 2 fleets clean" in capsys.readouterr().out
