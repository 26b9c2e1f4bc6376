"""What `resonator agent` accepts on its command line."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from resonator.errors import InputInvalid
from resonator_agent.cli import boxes, choose_cores, kernel_memory_bytes, parse_labels
from resonator_agent.enroll import parse_address


def test_labels_are_pairs() -> None:
    assert parse_labels(["model=el300", "note=a=b"]) == {"model": "el300", "note": "a=b"}


@pytest.mark.parametrize("label", ["model", "=x", "model=", "-x=1"])
def test_a_bad_label_is_named(label: str) -> None:
    with pytest.raises(InputInvalid, match="--label"):
        parse_labels([label])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--name", "a/b"], r"'a/b' is not a name: letters, digits, .* a letter or digit$"),
        ([], "--name is missing"),
        (["enroll", "--token", "x", "--hub", "h"], "that is no token"),
    ],
)
def test_a_bad_name_or_token_is_refused_in_words(arguments: list[str], sentence: str) -> None:
    done = CliRunner().invoke(boxes, arguments)
    assert isinstance(done.exception, InputInvalid)
    assert re.search(sentence, str(done.exception))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hub.example.org", ("hub.example.org", 8884)),
        ("10.0.0.1:99", ("10.0.0.1", 99)),
        ("[::1]:99", ("::1", 99)),
        ("[::1]", ("::1", 8884)),
        ("mqtts://hub.example:8883", ("hub.example", 8884)),
    ],
)
def test_enrol_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", ":8884", "hub:", "hub:x", "hub:0", "hub:70000", "[]:1"])
def test_enrol_addresses_that_are_none(text: str) -> None:
    with pytest.raises(InputInvalid, match="is not an address"):
        parse_address(text)


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
