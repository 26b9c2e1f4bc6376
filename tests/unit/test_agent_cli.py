"""What `resonator agent` accepts on its command line."""

from __future__ import annotations

import pytest

from resonator.errors import InputInvalid
from resonator_agent.cli import agent, choose_cores, kernel_memory_bytes, parse_labels


def test_labels_are_pairs() -> None:
    assert parse_labels(["model=el300", "note=a=b"]) == {"model": "el300", "note": "a=b"}


@pytest.mark.parametrize("label", ["model", "=x", "model=", "-x=1"])
def test_a_bad_label_is_named(label: str) -> None:
    with pytest.raises(InputInvalid, match="--label"):
        parse_labels([label])


def test_a_bad_name_is_refused_in_words() -> None:
    with pytest.raises(InputInvalid, match=r"'a/b' is not a name: letters, digits, .* a letter or digit$"):
        agent(name="a/b", broker="mqtt://127.0.0.1:1883")


def test_cores_are_the_last_ones_unless_they_are_named() -> None:
    assert choose_cores(1, None, {0, 1, 2, 3}) == (3,)
    assert choose_cores(2, None, {0, 1, 2, 3}) == (2, 3)
    assert choose_cores(1, "3,1", {0, 1, 2, 3}) == (1, 3)


@pytest.mark.parametrize(
    ("count", "cpus", "words"),
    [(3, None, "--cores 3"), (1, "7", "may use the cores 0,1"), (1, "one", "not a list of core numbers")],
)
def test_cores_that_are_not_there_are_refused(count: int, cpus: str | None, words: str) -> None:
    with pytest.raises(InputInvalid, match=words):
        choose_cores(count, cpus, {0, 1})


def test_a_kernel_may_use_half_the_box_unless_told() -> None:
    assert kernel_memory_bytes(None, 8 * 2**30) == 4 * 2**30
    assert kernel_memory_bytes(None, 0) == 256 * 2**20
    assert kernel_memory_bytes(1024, 8 * 2**30) == 2**30
