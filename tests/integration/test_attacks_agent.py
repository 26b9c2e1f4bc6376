"""Attacks on an agent by whoever took its broker over: nothing but what its hub says, once, in time, is run.

The agent is a real one, with its profiler, at a real Mosquitto that asks nobody where he may speak.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.fleet_authority import ANN, BOX, HUB, OTHER, Fleet, guarded
from fakes.kernels import build_c, push
from fakes.shell import identity
from fakes.speakers import PATIENCE_S, Speaker, Tap, seal_of, signed, speaking, tapping
from resonator.bus import topics
from resonator.bus.blobs import BlobStore, serve
from resonator.failures import FailureKind
from resonator.jobspec import Measure
from resonator.messages import (
    BlobAbsent,
    BlobChunk,
    BlobRef,
    BlobRequest,
    DeviceState,
    KernelResult,
    Message,
    WindowClose,
    WindowClosed,
    WindowGrant,
    WindowOpened,
    WindowRefused,
)
from resonator.trust import Credentials
from resonator_agent.bootstrap import assembled
from resonator_agent.memory import Memory
from resonator_agent.runtime import Agent, Settings
from resonator_agent.worker_process import Limits

UNSIGNED = "not signed as it must be"
MEASURE = Measure(number=1, repeat=1, min_repeat_ms=1, timeout_s=5.0)
WINDOW, KERNEL, BLOB = (topics.device_dn("lab", "box", channel) for channel in ("window", "kernel", "blob"))
OTHERS = topics.device_dn("lab", "other", "kernel")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build_c("slow", tmp_path_factory.mktemp("kernel"))


class Scene:
    """An agent, its hub in the hands of the test, and whoever has the broker."""

    def __init__(self, fleet: Fleet, agent: Agent, hub: Speaker, tap: Tap, blobs: Path) -> None:
        self.fleet, self.agent, self.hub, self.tap, self.blobs = fleet, agent, hub, tap, blobs

    @property
    def refused(self) -> dict[str, int]:
        """What the agent heard and did not act upon, by reason."""
        return dict(self.agent._peer.refused + self.agent._machine.refusals)

    def kept(self) -> list[str]:
        """What lies where it could be loaded."""
        return [path.name for path in self.blobs.rglob("*") if path.is_file()]

    def by_hub(self, topic: str, message: Message) -> bytes:
        """What the hub says; whether and when it arrives is up to whoever has the broker."""
        return signed(seal_of(self.fleet, HUB), topic, message)

    async def grants(self, epoch: int) -> None:
        """Have the hub open a window."""
        opened = sum(isinstance(one.message, WindowOpened) for one in self.hub.heard)
        await self.hub.peer.send(WINDOW, grant(epoch))
        window = await self.hub.hears(WindowOpened, opened + 1)
        assert isinstance(window, WindowOpened)
        assert window.epoch == epoch

    async def goes_on(self, kernel: bytes, epoch: int) -> None:
        """See that what the hub wants measured now is measured, after all that came before."""
        await self.hub.peer.send(KERNEL, push(f"good{epoch}", kernel, epoch=epoch))
        result = await self.hub.hears(KernelResult)
        while getattr(result, "candidate", "") != f"good{epoch}":
            count = sum(isinstance(one.message, KernelResult) for one in self.hub.heard)
            result = await self.hub.hears(KernelResult, count + 1)
        assert isinstance(result, KernelResult)
        assert result.latencies, result.failure

    def measured(self) -> list[str]:
        """Return the candidates of all results; each comes again until it is acknowledged."""
        results = [one.message for one in self.hub.heard if not one.repeated]
        return [result.candidate for result in results if isinstance(result, KernelResult)]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    fleet, state = Fleet(tmp_path), tmp_path / "agent"
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(guarded(fleet, captured=True))
        hub = await stack.enter_async_context(speaking(fleet, url, HUB, *topics.for_hub()))
        hub.listens(DeviceState, WindowOpened, WindowRefused, WindowClosed, KernelResult, BlobRequest)
        tap = await stack.enter_async_context(tapping(fleet, url, OTHER))
        memory = Memory(state)
        limits = Limits(cores=(0,), memory=4 * 2**30, max_foreign_load=1.0)
        settings = Settings("box", "lab", url, state, limits, Credentials.load(fleet.place(BOX)))
        agent = assembled(settings, identity(), memory)
        running = asyncio.ensure_future(agent.run())
        try:
            await asyncio.wait_for(hub.hears(DeviceState), 3 * PATIENCE_S)
            yield Scene(fleet, agent, hub, tap, state / "blobs")
        finally:
            agent.interrupt()
            await asyncio.wait_for(running, PATIENCE_S)
            memory.release()


def grant(epoch: int) -> WindowGrant:
    return WindowGrant(epoch=epoch, job="job", duration=300.0, measure=MEASURE)


async def test_attack_signature_windows_and_kernels_of_anybody_but_the_hub_are_not_run(
    scene: Scene, kernel: bytes
) -> None:
    evil, forgers = push("evil", kernel, epoch=2), (None, OTHER, ANN, BOX)
    for who in forgers:
        seal = None if who is None else seal_of(scene.fleet, who)
        await scene.tap.says(WINDOW, signed(seal, WINDOW, grant(1)))
    await scene.grants(2)
    for who in forgers:
        seal = None if who is None else seal_of(scene.fleet, who)
        await scene.tap.says(KERNEL, signed(seal, KERNEL, evil))
        await scene.tap.says(WINDOW, signed(seal, WINDOW, WindowClose(epoch=2)))
    await scene.tap.says(KERNEL, scene.by_hub(OTHERS, evil))  # for another device
    await scene.tap.says(WINDOW, scene.by_hub(KERNEL, grant(3)))  # for another topic of this one
    await scene.goes_on(kernel, 2)
    assert scene.measured() == ["good2"]
    assert scene.refused == {UNSIGNED: 3 * len(forgers) + 2}


async def test_attack_signature_a_kernel_with_a_changed_byte_leaves_no_trace_on_the_disk(
    scene: Scene, kernel: bytes
) -> None:
    await scene.grants(1)
    genuine = scene.by_hub(KERNEL, push("evil", kernel))
    place = genuine.index(zlib.compress(kernel)) + 100
    broken = [genuine[:place] + bytes([genuine[place] ^ 1 << bit]) + genuine[place + 1 :] for bit in range(8)]
    broken += [genuine[:cut] for cut in (0, 1, 100, len(genuine) // 2, len(genuine) - 1)]
    for payload in broken:
        await scene.tap.says(KERNEL, payload)
    await scene.tap.says(WINDOW, bytes([0x91]) * 1000)
    # What comes last is signed, and not what it says it is: the hub itself may be mistaken.
    wrong = push("wrong", kernel)
    data = zlib.compress(b"other bytes")
    await scene.hub.peer.send(
        KERNEL, wrong.model_copy(update={"blob": wrong.blob.model_copy(update={"data": data})})
    )
    result = await scene.hub.hears(KernelResult)
    assert isinstance(result, KernelResult)
    assert result.failure is not None
    assert result.failure.kind is FailureKind.BLOB_CORRUPT
    assert scene.kept() == []
    assert sum(scene.refused.values()) == len(broken) + 1
    assert scene.refused[UNSIGNED] == 8
    await scene.goes_on(kernel, 1)
    assert scene.measured() == ["wrong", "good1"]


async def test_attack_by_replay_old_windows_and_kernels_come_again_in_vain(
    scene: Scene, kernel: bytes
) -> None:
    await scene.grants(1)
    await scene.goes_on(kernel, 1)
    await scene.hub.peer.send(WINDOW, WindowClose(epoch=1))
    await scene.hub.hears(WindowClosed)
    kept = [(WINDOW, await scene.tap.catches(WINDOW)), (KERNEL, await scene.tap.catches(KERNEL))]
    granted = next(one.payload for one in scene.tap.kept if one.topic == WINDOW)
    assert not scene.refused
    await scene.tap.says(*kept[1])  # without any window
    await scene.grants(2)
    for topic, payload in [(WINDOW, granted), *kept]:  # grant, close and kernel of the window before
        await scene.tap.says(topic, payload)
    await scene.goes_on(kernel, 2)
    assert scene.measured() == ["good1", "good2"]
    assert scene.refused == {"repeated": 4, "no window": 1, "stale epoch": 3}


async def test_attack_by_reordering_what_belongs_to_no_window_is_not_run(scene: Scene, kernel: bytes) -> None:
    said = [
        (WINDOW, WindowClose(epoch=5)),
        (KERNEL, push("early", kernel, epoch=5)),
        (WINDOW, grant(5)),
        (WINDOW, grant(4)),
        (KERNEL, push("late", kernel, epoch=4)),
        (WINDOW, WindowClose(epoch=3)),
        (KERNEL, push("strange", kernel, epoch=5, job="another")),
    ]
    for topic, message in said:
        await scene.tap.says(topic, scene.by_hub(topic, message))
    await scene.goes_on(kernel, 5)
    assert scene.measured() == ["good5"]
    assert scene.refused == {"close": 1, "no window": 1, "stale epoch": 3, "another window": 1}


async def test_attack_signature_pieces_of_a_kernel_by_anybody_but_the_hub_are_not_kept(
    scene: Scene, kernel: bytes, tmp_path: Path
) -> None:
    store = BlobStore(tmp_path / "hub")
    store.put(kernel)
    await scene.grants(1)
    pulled = push("good1", kernel, inline=False)
    await scene.hub.peer.send(KERNEL, pulled)
    asked = await scene.hub.hears(BlobRequest)
    assert isinstance(asked, BlobRequest)
    answer = serve(store, asked)
    assert isinstance(answer, BlobChunk)
    evil = answer.model_copy(update={"data": bytes(len(answer.data))})
    for who in (None, OTHER, ANN, BOX):
        seal = None if who is None else seal_of(scene.fleet, who)
        for forged in (evil, BlobAbsent(digest=asked.digest)):
            await scene.tap.says(BLOB, signed(seal, BLOB, forged))
    genuine = scene.by_hub(BLOB, answer)
    place = genuine.index(answer.data) + len(answer.data) // 2
    await scene.tap.says(BLOB, genuine[:place] + bytes([genuine[place] ^ 1]) + genuine[place + 1 :])
    await scene.tap.says(BLOB, genuine)
    result = await scene.hub.hears(KernelResult)
    assert isinstance(result, KernelResult)
    assert result.latencies, result.failure
    assert scene.refused == {UNSIGNED: 9}


async def test_attack_by_a_blob_that_is_larger_unpacked_than_it_says(scene: Scene, kernel: bytes) -> None:
    await scene.grants(1)
    bomb = zlib.compress(bytes(2**26))
    said = push("bomb", kernel)
    ref = BlobRef(digest=said.blob.digest, size=1000, data=bomb)
    await scene.hub.peer.send(KERNEL, said.model_copy(update={"blob": ref}))
    result = await scene.hub.hears(KernelResult)
    assert isinstance(result, KernelResult)
    assert result.failure is not None
    assert result.failure.kind is FailureKind.BLOB_CORRUPT
    await scene.goes_on(kernel, 1)
