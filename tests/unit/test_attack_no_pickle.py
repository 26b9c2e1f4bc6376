"""Nothing that we read can run code: no pickles, nor anything else that unpacks to more than data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("hub", "common", "edge_agent", "benchmarks")
UNWANTED = re.compile(
    r"\b(pickle|cPickle|dill|cloudpickle|joblib|marshal|shelve|jsonpickle)\b"
    r"|allow_pickle\s*=\s*(?!False)|\bProcessPoolExecutor\b|\bmultiprocessing\b|\byaml\.(unsafe_load|full_load|UnsafeLoader|FullLoader|Loader)\b"
)
LOADS = re.compile(r"\b(np|numpy)\.load\((?!.*allow_pickle=False)")


@pytest.mark.parametrize("part", PARTS)
def test_attack_by_a_pickle_has_nowhere_to_go(part: str) -> None:
    files = sorted((ROOT / part).rglob("*.py"))
    assert files, f"{part} has no Python files: this test looks in the wrong place"
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in files
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        if UNWANTED.search(line) or LOADS.search(line)
    ]
    assert not found, "\n".join(found)
