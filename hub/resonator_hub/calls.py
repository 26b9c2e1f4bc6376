"""Stages as they are called in another process: by name, with plain data, by their annotations.

A worker reads models of strangers, so what comes back from it is read like any message from outside: data
of the types that the stage declares, within limits, and nothing that could run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import FunctionType
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from resonator.bundle import BundleInvalid
from resonator.errors import InputInvalid, ResonatorError
from resonator_hub.build.link import LinkerMissing, LinkFailed
from resonator_hub.channel import Garbled
from resonator_hub.frontends.model import ModelInvalid

F = TypeVar("F", bound=Callable[..., Any])


class ComputeFailed(ResonatorError):
    """A call did not come to a result for reasons of its own process; the sentence says which."""


OURS = ("resonator_hub",)
"""The packages whose functions are stages; tests add modules of their own."""
MAX_TEXT = 4000
"""How many characters of an error's text are told."""
_OUT_OF_MEMORY = "MemoryError"
_UNEXPECTED = "RuntimeError"
_EXPECTED = (ModelInvalid, LinkerMissing, LinkFailed, BundleInvalid, InputInvalid)
_KINDS: Mapping[str, type[Exception]] = {
    _OUT_OF_MEMORY: MemoryError,
    _UNEXPECTED: RuntimeError,
    **{error.__name__: error for error in (ComputeFailed, *_EXPECTED)},
}
_ALLOCATION_FAILED = (
    "bad_alloc",
    "out of memory",
    "cannot allocate memory",
    "failed to allocate",
    "unable to allocate",
)


@dataclass(frozen=True)
class Signature:
    """A stage as it is called: `module:function`, and how its arguments and its result are written."""

    name: str
    parameters: tuple[TypeAdapter[Any], ...]
    result: TypeAdapter[Any]
    once: bool


@dataclass(frozen=True)
class Outcome:
    """What a call came to: a result, or an error, and the processor time it took, in seconds."""

    cpu_s: float
    result: Any = None
    error: Exception | None = None


def once(function: F) -> F:
    """Mark a stage that reads bytes which a client wrote: its worker does nothing else afterwards.

    Whoever takes over a worker by way of a model has that model's call, and not the next client's.
    """
    function.once = True  # type: ignore[attr-defined]
    return function


@cache
def signature(function: Callable[..., Any]) -> Signature:
    """Return how a stage is called. Raises TypeError unless it is an annotated function of a module."""
    if not isinstance(function, FunctionType) or function.__qualname__ != function.__name__:
        raise TypeError(f"{function!r} is no function of a module: it cannot run in another process")
    hints = get_type_hints(function)
    names = inspect.signature(function).parameters
    if missing := [name for name in (*names, "return") if name not in hints]:
        raise TypeError(f"{function.__name__} does not say of what type these are: {', '.join(missing)}")
    parameters = tuple(TypeAdapter(hints[name]) for name in names)
    name = f"{function.__module__}:{function.__name__}"
    return Signature(name, parameters, TypeAdapter(hints["return"]), getattr(function, "once", False))


def find(name: str, packages: Sequence[str]) -> Callable[..., Any]:
    """Return the function `module:function` of one of `packages`. Raises Garbled for anything else."""
    module, _, function = name.partition(":")
    if not any(module == package or module.startswith(f"{package}.") for package in packages):
        raise Garbled(f"{name!r} is not a stage: these are in {', '.join(packages)}")
    found = getattr(import_module(module), function, None)
    if not isinstance(found, FunctionType) or found.__module__ != module:
        raise Garbled(f"{name!r} is not a function")
    return found


def call(function: Callable[..., Any], arguments: Sequence[Any]) -> list[Any]:
    """Return a call as plain data. Raises TypeError for arguments that are not what the stage takes."""
    told = signature(function)
    if len(arguments) > len(told.parameters):
        raise TypeError(f"{told.name} takes {len(told.parameters)} arguments, not {len(arguments)}")
    return [told.name, [_plain(*pair, told.name) for pair in zip(told.parameters, arguments, strict=False)]]


def perform(message: Any, packages: Sequence[str], cpu_s: Callable[[], float]) -> list[Any]:
    """Run the call in `message`, and return its outcome as plain data: seconds, kind of error, value."""
    before = cpu_s()
    try:
        function, arguments = read(message, packages)
        came = answer(function, function(*arguments))
    except Exception as error:
        came = refusal(error)
    return [cpu_s() - before, *came]


def read(message: Any, packages: Sequence[str]) -> tuple[Callable[..., Any], list[Any]]:
    """Return the function that a call names, and its arguments. Raises Garbled for what is no call."""
    try:
        name, values = message
        function = find(name, packages)
        given = zip(signature(function).parameters, values, strict=False)
        return function, [adapter.validate_python(value) for adapter, value in given]
    except (ValidationError, ValueError, TypeError) as error:
        raise Garbled(f"what came is no call of a stage: {str(error)[:500]}") from error


def answer(function: Callable[..., Any], result: Any) -> tuple[str | None, Any]:
    """Return a stage's result as plain data, after no error. Raises TypeError for what it does not return."""
    told = signature(function)
    return None, _plain(told.result, result, told.name)


def outcome(message: Any, told: Signature) -> Outcome:
    """Return what came of a call. Raises Garbled when that is not what the stage returns."""
    try:
        cpu_s, kind, value = message
        cpu_s = max(0.0, float(cpu_s))
        if kind is None:
            return Outcome(cpu_s, told.result.validate_python(value))
        if not isinstance(value, str):
            raise TypeError(value)
        return Outcome(cpu_s, error=_KINDS[kind](value[:MAX_TEXT]))
    except (ValidationError, ValueError, TypeError, KeyError) as error:
        raise Garbled(f"{told.name} came back with something else than it returns") from error


def _plain(adapter: TypeAdapter[Any], value: Any, name: str) -> Any:
    try:
        return adapter.dump_python(value, warnings="error")
    except PydanticSerializationError as error:
        raise TypeError(f"{name} is not annotated with what it is given or returns: {error}") from None


def refusal(error: Exception) -> tuple[str | None, Any]:
    """Return an error as its kind and its sentence: TVM's, and what else is not ours, as text alone."""
    text = str(error)
    if isinstance(error, ComputeFailed):
        return type(error).__name__, text[:MAX_TEXT]
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _ALLOCATION_FAILED):
        return _OUT_OF_MEMORY, ""
    if isinstance(error, _EXPECTED):
        return type(error).__name__, text[:MAX_TEXT]
    return _UNEXPECTED, f"{type(error).__name__}: {text}"[:MAX_TEXT]
