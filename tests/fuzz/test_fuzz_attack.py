"""The fuzzer's harness itself, for a few thousand inputs; `make fuzz` runs millions."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import mutations, seeds
from resonator.bus.codec import decode
from resonator.messages import TYPES

HARNESS = Path(__file__).with_name("fuzz_codec.py")
RUNS = 5000


def test_attack_by_fuzzing_begins_with_every_type_of_message() -> None:
    assert {decode(data).message.wire for data in seeds.messages()} == set(TYPES)
    assert list(seeds.messages()) == list(seeds.messages())


def test_attack_by_fuzzing_changes_messages_into_others() -> None:
    changed = {mutations.changed(data, seed) for seed, data in enumerate(seeds.messages())}
    assert len(changed) > len(TYPES)
    assert mutations.changed(b"\xc1", 1) is None


def test_attack_by_fuzzing_the_codec(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed; `make fuzz` installs it")
    done = subprocess.run(
        [sys.executable, HARNESS, f"-runs={RUNS}", tmp_path / "codec"],
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert f"stat::number_of_executed_units: {RUNS}" in done.stderr
    assert any((tmp_path / "codec").iterdir())
