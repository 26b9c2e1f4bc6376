"""Calls as they travel to a worker and back: data of the types that a stage declares, and nothing else."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterator, Sequence
from threading import Thread
from typing import Any

import pytest

from resonator.failures import Failure, FailureKind
from resonator.tensors import TensorSpec
from resonator_hub import calls, channel
from resonator_hub.build import Kernel, LinkerMissing
from resonator_hub.cost_model import Sample
from resonator_hub.frontends import ModelInvalid

HERE = (__name__,)
SPEC = TensorSpec(name="x", shape=(1, 3), dtype="float32")


def same_kernel(kernel: Kernel | Failure) -> Kernel | Failure:
    return kernel


def same_samples(samples: Sequence[Sample], previous: bytes | None) -> tuple[Sample, ...]:
    return tuple(samples)


def same_names(names: frozenset[str], limit: float = math.inf) -> frozenset[str]:
    return names


def lies() -> int:
    return "seven"  # type: ignore[return-value]


def untyped(x) -> int:  # type: ignore[no-untyped-def]
    return 0


def refuses() -> None:
    raise ModelInvalid("No.")


def has_no_linker() -> None:
    raise LinkerMissing("Install one.")


def divides() -> float:
    return 1 / 0


def runs_out() -> None:
    raise RuntimeError("std::bad_alloc")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def carried(pair: tuple[socket.socket, socket.socket], message: Any, most: int | None = None) -> Any:
    """Return a message as it arrives."""
    sending = Thread(target=channel.send, args=(pair[0], message))
    sending.start()
    try:
        return channel.receive(pair[1], most)
    finally:
        sending.join()


def done(
    pair: tuple[socket.socket, socket.socket], function: Callable[..., Any], *arguments: Any
) -> calls.Outcome:
    """Return the outcome of a call that went there and came back."""
    performed = calls.perform(carried(pair, calls.call(function, arguments)), HERE, lambda: 0.0)
    return calls.outcome(carried(pair, performed, 2**30), calls.signature(function))


@pytest.mark.parametrize(
    ("function", "arguments", "result"),
    [
        (same_kernel, (Kernel(bytes(10**6), "0" * 64, (SPEC, SPEC)),), None),
        (same_kernel, (Failure(kind=FailureKind.BUILD_ERROR, detail="no"),), None),
        (same_samples, ([Sample(b"a", 1.5, "g"), Sample(b"b" * 5000, math.inf, "h")], None), None),
        (same_samples, ((), b"c" * 4096), ()),
        (same_names, (frozenset({"a", "b"}),), None),
    ],
)
def test_a_call_comes_back_as_it_went(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    result: Any,
    pair: tuple[socket.socket, socket.socket],
) -> None:
    expected = arguments[0] if result is None else result
    found = done(pair, function, *arguments).result
    assert found == (tuple(expected) if isinstance(expected, list) else expected)


@pytest.mark.parametrize(
    ("function", "kind", "text"),
    [
        (refuses, ModelInvalid, "No."),
        (has_no_linker, LinkerMissing, "Install one."),
        (divides, RuntimeError, "ZeroDivisionError: division by zero"),
        (runs_out, MemoryError, ""),
        (lies, RuntimeError, "TypeError: "),
    ],
)
def test_errors_come_back_by_kind_and_sentence(
    function: Callable[..., Any],
    kind: type[Exception],
    text: str,
    pair: tuple[socket.socket, socket.socket],
) -> None:
    error = done(pair, function).error
    assert type(error) is kind
    assert str(error).startswith(text)


def test_arguments_are_what_the_stage_takes() -> None:
    with pytest.raises(TypeError, match="not annotated with what it is given"):
        calls.call(same_kernel, ["a kernel"])
    with pytest.raises(TypeError, match="takes 1 arguments, not 2"):
        calls.call(same_kernel, [None, None])
    with pytest.raises(TypeError, match="does not say of what type these are: x"):
        calls.call(untyped, [1])


@pytest.mark.parametrize("name", ["os:system", "resonator_hub_evil:f", "", ":", "resonator_hub:calls"])
def test_attack_by_a_name_of_what_is_no_stage(name: str) -> None:
    with pytest.raises(channel.Garbled, match="is not a"):
        calls.find(name, calls.OURS)


def test_attack_by_names_that_a_module_only_knows() -> None:
    with pytest.raises(channel.Garbled, match="is not a function"):
        calls.find("resonator_hub.calls:import_module", calls.OURS)


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        [0.0, None, {"library": b""}],
        [0.0, "SystemExit", "x"],
        [0.0, "ModelInvalid", ["x"]],
        ["x", None, None],
        [0.0, [], None],
        [0.0, None, 1, 2],
    ],
)
def test_attack_by_an_outcome_that_the_stage_does_not_have(message: Any) -> None:
    with pytest.raises(channel.Garbled, match="something else than it returns"):
        calls.outcome(message, calls.signature(same_kernel))


def test_attack_by_a_piece_that_is_not_there(pair: tuple[socket.socket, socket.socket]) -> None:
    body = b"\xd6\x01\x00\x00\x00\x07"  # the seventh of none
    pair[0].sendall(b"\x00\x00\x00\x00" + len(body).to_bytes(8, "big") + body)
    with pytest.raises(channel.Garbled):
        channel.receive(pair[1], 2**20)


def test_a_channel_that_ends_in_the_middle_says_so(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].sendall(b"\x00\x00")
    pair[0].close()
    with pytest.raises(EOFError):
        channel.receive(pair[1], 2**20)
