"""The scheduler's state as bytes: whole objects, those that are shared and those that form circles.

Only the classes in the tables below are written and made again, each with the fields that it has: data, and
nothing that runs. An object is a row of values under a number; whoever refers to it names the number. A field
that a snapshot lacks, because it was written by an earlier version, takes its default.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, get_args

import msgpack
from pydantic import BaseModel

from resonator.errors import ResonatorError
from resonator.failures import Failure
from resonator.jobspec import Measure, TargetSpec
from resonator.messages import Conditions
from resonator_hub.scheduler.batch import Batch
from resonator_hub.scheduler.candidate import Candidate
from resonator_hub.scheduler.commands import Command
from resonator_hub.scheduler.compute import Compute
from resonator_hub.scheduler.device import Device, Window
from resonator_hub.scheduler.estimates import Estimates, RunningMean
from resonator_hub.scheduler.events import EVENTS, CandidateFound, JobOrder, Offer, TaskFound
from resonator_hub.scheduler.fleet import Fleet, Pool, Watch
from resonator_hub.scheduler.job import Job
from resonator_hub.scheduler.ledger import Entry, Ledger, Page
from resonator_hub.scheduler.ranked import Ranked
from resonator_hub.scheduler.step import Step
from resonator_hub.scheduler.task import Task
from resonator_hub.scheduler.timers import Timers
from resonator_hub.scheduler.transitions import CandidateState, DevicePhase, JobPhase, RoundState

FORMAT = 1
"""How snapshots are written; another number cannot be read."""

_STATE: tuple[type, ...] = (
    Job,
    Task,
    Batch,
    Candidate,
    Step,
    Device,
    Window,
    Watch,
    Pool,
    RunningMean,
    Entry,
)
_HELD: tuple[type, ...] = (JobOrder, Offer, TaskFound, CandidateFound, *EVENTS.values(), *get_args(Command))
_PARTS: tuple[type, ...] = (Compute, Estimates, Fleet, Ledger, Page, Ranked, Timers)
"""Made without arguments, and then filled."""

CLASSES: Mapping[str, type] = {cls.__name__: cls for cls in (*_STATE, *_HELD, *_PARTS)}
"""Every class that a snapshot may hold, by its name there,"""
ENUMS: Mapping[str, type[Enum]] = {
    cls.__name__: cls for cls in (JobPhase, RoundState, CandidateState, DevicePhase)
}
"""every enumeration,"""
MODELS: Mapping[str, type[BaseModel]] = {
    cls.__name__: cls for cls in (TargetSpec, Measure, Failure, Conditions)
}
"""and every part of a message."""

_CONTAINERS: Mapping[str, type] = {
    cls.__name__: cls for cls in (list, dict, set, deque, defaultdict, OrderedDict)
}
_SCALARS = frozenset((type(None), bool, int, float, str, bytes))
_ENUMS, _MODELS = frozenset(ENUMS.values()), frozenset(MODELS.values())
_REF, _TUPLE, _ENUM, _MODEL = range(4)
"""What a value that is a list begins with; all others are what they are."""


class SnapshotUnreadable(ResonatorError):
    """A snapshot is damaged, or was written by a version that this one cannot follow."""


def dump(root: object) -> bytes:
    """Write an object and all that it refers to; raises TypeError for what is in none of the tables."""
    return _Writer().write(root)


def load(data: bytes) -> Any:
    """Read what `dump` wrote; raises SnapshotUnreadable."""
    try:
        return _read(msgpack.unpackb(zlib.decompress(data), strict_map_key=False))
    except (zlib.error, msgpack.UnpackException, KeyError, IndexError, TypeError, ValueError) as error:
        raise SnapshotUnreadable(f"the snapshot cannot be read: {error or type(error).__name__}") from error


class _Writer:
    """Numbers objects as it meets them; what they refer to waits for its turn, however deep it lies."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._found: list[Any] = []
        self._classes: dict[type, tuple[int, tuple[str, ...]]] = {}

    def write(self, root: object) -> bytes:
        first = self._value(root)
        rows = list(map(self._row, self._found))  # the list grows on the way
        told = [[cls.__name__, names] for cls, (_, names) in self._classes.items()]
        return zlib.compress(msgpack.packb([FORMAT, told, rows, first]), 1)

    def _value(self, value: Any) -> Any:
        cls = type(value)
        if cls in _SCALARS:
            return value
        if cls is tuple:
            return [_TUPLE, *map(self._value, value)]
        if cls in _ENUMS:
            return [_ENUM, cls.__name__, value.name]
        if cls in _MODELS:
            return [_MODEL, cls.__name__, value.model_dump_json()]
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._found)
            self._found.append(value)  # which keeps it alive, and its id its own
        return [_REF, number]

    def _row(self, value: Any) -> list[Any]:
        number, names = self._class(type(value))
        put = self._value
        match value:
            case dict():
                row = [_factory(value)] if isinstance(value, defaultdict) else []
                for key, item in value.items():
                    row += (put(key), put(item))
            case set():
                row = [put(item) for item in sorted(value)]
            case list() | deque():
                row = [put(item) for item in value]
            case _:
                if isinstance(value, Ranked):
                    value.tidy()
                row = [put(getattr(value, name)) for name in names]
        return [number, *row]

    def _class(self, cls: type) -> tuple[int, tuple[str, ...]]:
        known = self._classes.get(cls)
        if known is None:
            if cls not in (_CONTAINERS.get(cls.__name__), CLASSES.get(cls.__name__)):
                raise TypeError(f"a snapshot cannot hold a {cls.__module__}.{cls.__qualname__}")
            names = () if cls.__name__ in _CONTAINERS else _fields(cls)
            known = self._classes[cls] = (len(self._classes), names)
        return known


def _factory(value: defaultdict[Any, Any]) -> str:
    factory = value.default_factory
    if not isinstance(factory, type) or CLASSES.get(factory.__name__) is not factory:
        raise TypeError(f"a snapshot cannot hold a dictionary of {factory}")
    return factory.__name__


def _fields(cls: type) -> tuple[str, ...]:
    if is_dataclass(cls):
        return tuple(one.name for one in fields(cls))
    return tuple(cls.__slots__) if hasattr(cls, "__slots__") else tuple(vars(cls()))


def _read(told: Any) -> Any:
    version, classes, rows, first = told
    if version != FORMAT:
        raise ValueError(f"it is of format {version}, this version reads {FORMAT}")
    fillers = [_filler(name, names) for name, names in classes]
    shells = [fillers[row[0]][0](row) for row in rows]

    def value(one: Any) -> Any:
        if type(one) is not list:
            return one
        kind = one[0]
        if kind == _REF:
            return shells[one[1]]
        if kind == _TUPLE:
            return tuple(value(item) for item in one[1:])
        if kind == _ENUM:
            return ENUMS[one[1]][one[2]]
        if kind == _MODEL:
            return MODELS[one[1]].model_validate_json(one[2])
        raise ValueError(f"a value of the unknown kind {kind}")

    for shell, row in zip(shells, rows, strict=True):
        fillers[row[0]][1](shell, [value(one) for one in row[1:]])
    return value(first)


_Make = Callable[[list[Any]], Any]
_Fill = Callable[[Any, list[Any]], None]


def _filler(name: str, names: list[str]) -> tuple[_Make, _Fill]:
    """Return how an object of a class begins, empty, and how it gets its values."""
    if name == "defaultdict":
        return lambda row: defaultdict(CLASSES[row[1]]), lambda shell, row: _pair(shell, row[1:])
    if (container := _CONTAINERS.get(name)) is not None:
        if issubclass(container, dict):
            return lambda _: container(), _pair
        return lambda _: container(), set.update if container is set else container.extend  # type: ignore[attr-defined]
    if name not in CLASSES:
        raise ValueError(f"this version knows no {name}")
    cls = CLASSES[name]
    if unknown := set(names) - set(_fields(cls)):
        raise ValueError(f"this version knows no {name}.{min(unknown)}")
    missing = _defaults(cls, names)

    def fill(shell: Any, values: list[Any]) -> None:
        for field_name, given in zip(names, values, strict=True):
            object.__setattr__(shell, field_name, given)  # also where it is frozen
        for field_name, default in missing:
            object.__setattr__(shell, field_name, default())

    return (lambda _: cls()) if cls in _PARTS else (lambda _: object.__new__(cls)), fill


def _pair(shell: dict[Any, Any], values: list[Any]) -> None:
    shell.update(zip(values[::2], values[1::2], strict=True))


def _defaults(cls: type, names: Iterable[str]) -> list[tuple[str, Callable[[], Any]]]:
    """Return what makes the value of each field that a snapshot does not have."""
    if cls in _PARTS:
        return []  # it was made with them
    found: list[tuple[str, Callable[[], Any]]] = []
    for one in fields(cls):
        if one.name in names:
            continue
        if one.default_factory is not MISSING:
            found.append((one.name, one.default_factory))
        elif one.default is not MISSING:
            found.append((one.name, lambda default=one.default: default))  # type: ignore[misc]
        else:
            raise ValueError(f"it lacks {cls.__name__}.{one.name}")
    return found
