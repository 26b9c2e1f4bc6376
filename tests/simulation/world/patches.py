"""Clocks and identifiers of the world, in place of the machine's, for as long as the world turns."""

from __future__ import annotations

import contextlib
import random
import secrets
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from unittest.mock import patch

import resonator.bus.mqtt
import resonator.bus.pull
import resonator.client.client
import resonator_hub.artifacts.stage
import resonator_hub.hub
import resonator_hub.inline
from resonator.bus.gate import Gate
from resonator_hub.inbox import Clock
from resonator_hub.keeper import Keeper
from simulation.world.process import CURRENT

_version = cache(version)
EPOCH_S = 1.8e9
"""What wall clocks that were set well show when a world begins."""


@contextlib.contextmanager
def in_place(
    now: Callable[[], float], chance: random.Random, connection: object, snapshot_every: int
) -> Iterator[None]:
    """Have all code in the world read its clocks: `now` is steady, the wall clock is that of its host.

    Hubs take a snapshot after so many events, since their lives are short.
    """

    def wall() -> float:
        process = CURRENT.get()
        return EPOCH_S + now() if process is None else process.wall()

    def unique() -> uuid.UUID:
        return uuid.UUID(int=chance.getrandbits(128))

    def token(size: int = 16) -> str:
        return chance.randbytes(size).hex()

    with (
        patch.object(time, "time", wall),
        patch.object(time, "monotonic", now),
        patch.object(uuid, "uuid4", unique),
        patch.object(secrets, "token_hex", token),
        patch.object(resonator.bus.mqtt, "Connection", connection),
        # Packages keep their versions; looking them up takes longer than all else at a hub's start.
        patch.object(resonator_hub.hub, "version", _version),
        patch.object(resonator_hub.artifacts.stage, "version", _version),
        # Small kernels are pulled in pieces, so that the world is not full of bytes.
        patch.object(resonator_hub.inline, "MAX_INLINE", 20_000),
        patch.object(resonator.client.client, "MAX_INLINE", 20_000),
        patch.object(resonator.bus.pull, "MAX_CHUNK", 16_384),
        patch.dict(Keeper.__init__.__kwdefaults__, every=snapshot_every),
        # Defaults are bound when the modules are read.
        patch.object(Clock.__init__, "__kwdefaults__", {"not_before": 0.0, "wall": wall, "steady": now}),
        patch.object(Gate.__init__, "__defaults__", (now,)),
    ):
        yield
