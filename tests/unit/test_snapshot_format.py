"""A snapshot's bytes: what goes in comes out, and nothing else can."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import zlib
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from enum import Enum
from math import inf
from typing import Any

import msgpack
import pytest

from resonator.failures import Failure, FailureKind
from resonator.ids import DeviceId, JobId, TaskId
from resonator.jobspec import Measure, TargetSpec
from resonator.messages import Conditions
from resonator_hub import scheduler
from resonator_hub.scheduler import Scheduler, events
from resonator_hub.scheduler.device import Device
from resonator_hub.scheduler.estimates import RunningMean
from resonator_hub.scheduler.fleet import Pool, Watch
from resonator_hub.scheduler.ledger import Page
from resonator_hub.scheduler.ranked import Ranked
from resonator_hub.scheduler.snapshot import CLASSES, ENUMS, SnapshotUnreadable, dump, load
from resonator_hub.scheduler.transitions import DevicePhase

NO_STATE = {
    *("Scheduler", "Desk", "Knobs", "Policy", "Sequential", "Greedy", "Fair", "LoadAware"),  # made by rules
    *("Admission", "Dispatch", "Models", "Tuning", "Windows"),  # know a desk and nothing else
    *("Ended", "EndedJob", "Stories"),  # kept apart, or not at all
    *(
        "Ahead",
        "Contender",
        "Census",
        "Standing",
        "Cue",
        "IllegalTransition",
        "SnapshotUnreadable",
        "_Writer",
    ),
}
"""Classes of the scheduler that nothing in its state refers to."""
ORDER = events.JobOrder("a", TargetSpec(kind="cpu"), trials=8, measure=Measure())


def edited(data: bytes, change: Callable[[list[Any]], object]) -> bytes:
    """Return a snapshot as another version, or somebody else, would have written it."""
    told = msgpack.unpackb(zlib.decompress(data))
    change(told)
    return zlib.compress(msgpack.packb(told))


def test_values_and_containers_come_back_as_they_were() -> None:
    # Given
    told = {
        "numbers": [0, -1, 2**40, 1.5, inf, -inf, True, None],
        "texts": ("", "ü", b"\x00\xff", ("nested", ())),
        ("compile", JobId("a"), True): DevicePhase.IDLE,
        None: {("s/d", 3), ("s/c", 4)},
        "queue": deque([1, 2]),
        "ordered": OrderedDict([("b", 1), ("a", 2)]),
        "target": TargetSpec(labels={"k": "v"}),
        "failure": Failure(kind=FailureKind.DEVICE_DIRTY, detail="load"),
        "conditions": Conditions(temperature_c=55.5),
        "order": ORDER,
    }
    # When
    back = load(dump(told))
    # Then
    assert back == told
    assert list(back) == list(told)
    assert [type(value) for value in back.values()] == [type(value) for value in told.values()]


def test_dictionaries_with_defaults_go_on_making_them() -> None:
    pages: defaultdict[TaskId | None, Page] = defaultdict(Page)
    pages[None].add_all(Page())
    back = load(dump(pages))
    assert isinstance(back[TaskId("j/t0")], Page)
    assert list(back) == [None, "j/t0"]


def test_what_is_shared_stays_shared_and_circles_stay_closed() -> None:
    # Given a device in a pool that it knows
    device = Device(DeviceId("s/d"))
    pool = Pool(1, Watch(TargetSpec(kind="cpu")), "hardware", events.Offer("cpu", "{}"))
    pool.watch.pools["hardware"], pool.present[device.id] = pool, device
    device.pools.append(pool)
    # When
    one, other, pools = load(dump([device, device, device.pools]))
    # Then
    assert one is other
    assert one.pools is pools
    assert pools[0].present["s/d"] is one
    assert pools[0].watch.pools["hardware"] is pools[0]


def test_a_chain_of_any_length_is_no_recursion() -> None:
    chain: list[Any] = []
    for _ in range(10_000):
        chain = [chain]
    back, length = load(dump(chain)), 0
    while back:
        back, length = back[0], length + 1
    assert length == 10_000


def test_what_was_removed_from_a_queue_is_not_kept() -> None:
    ranked: Ranked[Device] = Ranked()
    for number in range(20):
        ranked.put(number, (number % 3,), Device(DeviceId(f"s/{number}")))
    for number in range(19):
        ranked.remove(number)
    data = dump(ranked)
    assert b"s/18" not in zlib.decompress(data)
    back = load(data)
    assert len(back) == 1
    assert back.best()[1].id == "s/19"


def test_every_class_of_the_scheduler_is_kept_or_known_not_to_be() -> None:
    names = set()
    for module in pkgutil.iter_modules(scheduler.__path__, f"{scheduler.__name__}."):
        for _, cls in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if cls.__module__ == module.name:
                name = cls.__name__
                names.add(name)
                assert CLASSES.get(name, ENUMS.get(name, cls)) is cls, f"two classes are called {name}"
    assert names - NO_STATE == set(CLASSES) | set(ENUMS)
    assert names >= NO_STATE


class Foreign:
    """No class of the scheduler."""


class Colour(Enum):
    """No enumeration of the scheduler."""

    RED = 1


@pytest.mark.parametrize("value", [Foreign(), Colour.RED, print, Device, defaultdict(list), object()])
def test_what_is_not_in_the_tables_is_not_written(value: object) -> None:
    with pytest.raises(TypeError, match="a snapshot cannot hold a"):
        dump({"of": [value]})


def test_a_field_that_came_later_takes_its_default() -> None:
    # Given a snapshot from before devices counted their strikes, and had batches
    device = Device(DeviceId("s/d"), strikes=3, epoch=7)

    def forget(told: list[Any]) -> None:
        index, names = next((n, names) for n, (name, names) in enumerate(told[1]) if name == "Device")
        for name in ("strikes", "batches"):
            at = names.index(name)
            names.pop(at)
            for row in told[2]:
                if row[0] == index:
                    row.pop(at + 1)

    # When
    back = load(edited(dump(device), forget))
    # Then
    assert (back.id, back.epoch, back.strikes, back.batches) == ("s/d", 7, 0, {})


def _lacks_value(told: list[Any]) -> None:
    told[1][0][1].remove("value")
    told[2][0].pop(1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda told: told.__setitem__(0, 99), "it is of format 99, this version reads 1"),
        (lambda told: told[1][0].__setitem__(0, "Dragon"), "this version knows no Dragon"),
        (lambda told: told[1][0].__setitem__(0, "os.system"), "this version knows no os.system"),
        (lambda told: told[1][0][1].__setitem__(0, "wings"), "this version knows no RunningMean.wings"),
        (_lacks_value, "it lacks RunningMean.value"),
        (lambda told: told[2][0].append(1), "cannot be read"),
        (lambda told: told.__setitem__(3, [0, 77]), "cannot be read"),
        (lambda told: told.__setitem__(3, [9, 0]), "a value of the unknown kind 9"),
        (lambda told: told.__setitem__(3, [2, "DevicePhase", "FLYING"]), "FLYING"),
        (lambda told: told.__setitem__(3, [3, "TargetSpec", '{"wings": 2}']), "wings"),
        (lambda told: told.pop(), "cannot be read"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_the_reason(
    change: Callable[[list[Any]], object], reason: str
) -> None:
    with pytest.raises(SnapshotUnreadable, match=reason):
        load(edited(dump(RunningMean(1.0)), change))


@pytest.mark.parametrize(
    "data", [b"", b"nonsense", zlib.compress(b"\xc1"), zlib.compress(b"\x93\x01\x02\x03")]
)
def test_damaged_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SnapshotUnreadable):
        load(data)


def test_a_state_that_cannot_be_read_leaves_a_scheduler_as_it_is() -> None:
    # Given
    scheduler = Scheduler()
    scheduler.step(events.HubStarted(1.0, 2))
    before = scheduler.save()
    # When
    for state in (b"nonsense", dump({"now": 9.0, "wings": 2})):
        with pytest.raises(SnapshotUnreadable):
            scheduler.restore(state, [])
    # Then
    assert scheduler.save() == before
