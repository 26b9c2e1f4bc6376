"""Attacks on a hub by whoever took its broker over, and by members of the fleet that lie: refused, counted.

The broker is a real Mosquitto that asks nobody where he may speak. What a sound one stops before is in
test_attacks_broker.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgpack
import pytest

from fakes.orders import MODEL, carried, spec
from fakes.scene import ANN, BAD, BOB, GOOD, JOB, VERA, Scene, staged
from fakes.shell import BOX, SITE, state
from fakes.speakers import PATIENCE_S, Speaker, seal_of, signed, speaking
from resonator.bus import codec, topics
from resonator.errors import Refused
from resonator.messages import (
    MAX_MESSAGE,
    DeviceList,
    DeviceQuery,
    JobAccepted,
    JobCancel,
    JobList,
    JobQuery,
    JobSubmit,
    KernelPush,
    KernelResult,
    Status,
    WindowClosed,
    WindowGrant,
    WindowOpened,
)
from resonator.trust import Party

UNSIGNED = "not signed as it must be"
KERNEL = topics.device_dn(SITE, BOX, "kernel")
RESULT, BADS = (topics.device_up(SITE, name, "result") for name in (BOX, BAD.name))
ASKING = topics.client_up(SITE, ANN.name)
FAST = 1e-9
"""What every forged result claims; were one believed, it would win."""


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """A fleet at a captured broker, whose good device keeps its first results back."""
    async with staged(tmp_path, captured=True) as scene:
        scene.device.paused.clear()
        yield scene


async def pushed(scene: Scene) -> KernelPush:
    """Submit the job, and wait for a kernel on its way to the good device."""
    await scene.submit()
    message = codec.decode(await scene.tap.catches(KERNEL)).message
    assert isinstance(message, KernelPush)
    return message


def claim(push: KernelPush, **changes: object) -> KernelResult:
    result = KernelResult(
        job=push.job, candidate=push.candidate, epoch=push.epoch, latencies=(FAST,), device_time=1e-3
    )
    return result.model_copy(update=changes)


async def release(scene: Scene) -> None:
    """Have the good device answer for all that it was sent, and for what is to come."""
    scene.device.paused.set()
    for push in list(scene.device.pushed):
        await scene.device.report(push)


async def heard_all(scene: Scene) -> None:
    """Wait until the hub has heard all that was said on the good device's topics, last something genuine."""
    closed = WindowClosed(epoch=10**6, job="none", reason="restarted")
    last = await scene.device.peer.send(topics.device_up(SITE, BOX, "window"), closed)

    async def acknowledged() -> None:
        while last not in scene.device.acked:
            await scene.ask(scene.ann, DeviceQuery(), DeviceList)

    await asyncio.wait_for(acknowledged(), PATIENCE_S)


async def test_attack_signature_results_in_the_name_of_a_device_are_forged_in_vain(scene: Scene) -> None:
    push = await pushed(scene)
    forged = [
        signed(None, RESULT, claim(push)),
        *(signed(seal_of(scene.fleet, who), RESULT, claim(push)) for who in (BAD, ANN, VERA)),
        signed(seal_of(scene.fleet, GOOD), BADS, claim(push)),  # signed well, for another topic
    ]
    for payload in forged:
        await scene.tap.says(RESULT, payload)
    await heard_all(scene)
    assert scene.refused == {UNSIGNED: len(forged)}
    await release(scene)
    await scene.succeeds()


async def test_attack_signature_messages_with_a_changed_byte_or_cut_off_are_no_messages(scene: Scene) -> None:
    push = await pushed(scene)
    genuine = signed(seal_of(scene.fleet, GOOD), RESULT, claim(push))
    broken = [genuine[:place] for place in range(0, len(genuine), 97)]
    broken += [
        genuine[:place] + bytes([genuine[place] ^ 0x10]) + genuine[place + 1 :]
        for place in range(0, len(genuine), 41)
    ]
    for payload in broken:
        await scene.tap.says(RESULT, payload)
    await heard_all(scene)
    assert scene.refused["invalid"] + scene.refused[UNSIGNED] == len(broken)
    await release(scene)
    await scene.succeeds()


def nested(depth: int) -> bytes:
    return bytes([0x91]) * depth + b"\x01"


def twice() -> bytes:
    fields = [("v", 1), ("id", "a"), ("id", "b"), ("type", "ack"), ("src", "x")]
    packed = b"".join(msgpack.packb(key) + msgpack.packb(value) for key, value in fields)
    return bytes([0x80 | len(fields)]) + packed


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(lambda: nested(50), id="nested"),
        pytest.param(lambda: nested(1_000_000), id="nested a million deep"),
        pytest.param(twice, id="duplicated keys"),
        pytest.param(lambda: msgpack.packb({"v": 1, "id": "x" * 3 * 2**20}), id="long text"),
        pytest.param(lambda: b"\xdf\xff\xff\xff\xff", id="a map that promises four billion"),
        pytest.param(lambda: bytes(MAX_MESSAGE + 1), id="oversized"),
        pytest.param(lambda: b"", id="empty"),
    ],
)
async def test_attack_by_hostile_bytes_costs_the_good_device_nothing(
    scene: Scene, hostile: Callable[[], bytes]
) -> None:
    await pushed(scene)
    for _ in range(5):
        await scene.tap.says(RESULT, hostile())
    await heard_all(scene)
    assert scene.refused == {"invalid": 5}
    await release(scene)
    await scene.succeeds()


async def test_attack_by_replay_of_results_each_is_taken_once(scene: Scene) -> None:
    push = await pushed(scene)
    await scene.device.report(push)
    genuine = await scene.tap.catches(RESULT)
    for _ in range(7):
        await scene.tap.says(RESULT, genuine)
    for _ in range(3):
        await scene.tap.says(BADS, genuine)  # and in another's name
    await heard_all(scene)
    scene.device.pushed.remove(push)
    await release(scene)
    await scene.succeeds()
    assert scene.refused["repeated"] == 7
    assert scene.refused[UNSIGNED] == 3


async def test_attack_by_a_device_that_lies_about_windows_and_kernels(scene: Scene) -> None:
    push = await pushed(scene)
    async with speaking(scene.fleet, scene.url, BAD) as bad:

        async def says(channel: str, message: object) -> None:
            await bad.peer.send(topics.device_up(SITE, BAD.name, channel), message)  # type: ignore[arg-type]

        await says("result", claim(push))  # another device's kernel
        await says("result", claim(push, epoch=push.epoch + 1))
        await says("result", claim(push, job="no-such-job"))
        await says("window", WindowOpened(epoch=7, job=JOB, credit=10**6))  # never granted
        await says("window", WindowGrant(epoch=9, job=JOB, duration=60, measure=spec().spec.measure))
        await says("result", JobSubmit(job="mine", spec=spec(), model=carried(MODEL)))
        await says("state", state(status=Status.DRAINING))
        await scene.until_known(f"{SITE}/{BAD.name}")
    refused = scene.refused
    assert sum(refused.values()) == 6, refused
    assert refused["unexpected"] == 1, "grants are not for hubs"
    assert refused["misplaced"] == 1, "jobs do not come from devices"
    await release(scene)
    await scene.succeeds()


async def test_attack_signature_requests_in_the_name_of_a_user_are_forged_in_vain(scene: Scene) -> None:
    await pushed(scene)
    cancel = JobCancel(job=JOB)
    submit = JobSubmit(job="forged", spec=spec(), model=carried(MODEL))
    now, forged = time.time(), []
    for message in (cancel, submit):
        forged.append(signed(None, ASKING, message, at=now))
        forged += [signed(seal_of(scene.fleet, who), ASKING, message, at=now) for who in (BAD, BOB, VERA)]
    for payload in forged:
        await scene.tap.says(ASKING, payload)
    assert await jobs(scene) == [JOB]
    assert scene.refused == {UNSIGNED: len(forged)}
    await release(scene)
    await scene.succeeds()


async def test_attack_by_replay_of_requests_that_somebody_kept(scene: Scene) -> None:
    await pushed(scene)
    own = seal_of(scene.fleet, ANN)
    ages = {"hour": 3600.0, "eleven minutes": 660.0, "from tomorrow": -86_400.0}
    for name, age_s in ages.items():
        kept = signed(own, ASKING, JobCancel(job=JOB), message_id=name, at=time.time() - age_s)
        await scene.tap.says(ASKING, kept)
    await scene.tap.says(ASKING, signed(own, ASKING, JobCancel(job=JOB)))  # does not say when it was made
    assert await jobs(scene) == [JOB]
    assert scene.refused == {"stale": 4}
    await release(scene)
    await scene.succeeds()


async def test_attack_by_replay_of_a_submission_makes_no_second_job(scene: Scene) -> None:
    await pushed(scene)
    submitted = await scene.tap.catches(ASKING)
    for _ in range(5):
        await scene.tap.says(ASKING, submitted)
    assert await jobs(scene) == [JOB]
    assert scene.refused == {"repeated": 5}
    await release(scene)
    await scene.succeeds()


async def test_attack_acl_users_beyond_their_roles_are_told_so(scene: Scene) -> None:
    await pushed(scene)

    async def denied(who: Party, message: JobSubmit | JobCancel | JobQuery) -> str:
        filters = topics.for_client(SITE, who.name)
        async with speaking(scene.fleet, scene.url, who, *filters) as speaker:
            with pytest.raises(Refused) as caught:
                await scene.ask(speaker, message, JobAccepted)
        return str(caught.value)

    assert "viewer" in await denied(VERA, JobSubmit(job="hers", spec=spec(), model=carried(MODEL)))
    assert "viewer" in await denied(VERA, JobCancel(job=JOB))
    assert "not known" in await denied(BOB, JobCancel(job=JOB)), "a submitter knows of his own jobs alone"
    assert "not known" in await denied(BOB, JobQuery(job=JOB))
    async with speaking(scene.fleet, scene.url, BOB, *topics.for_client(SITE, BOB.name)) as bob:
        assert await jobs(scene, bob) == []
    await release(scene)
    await scene.succeeds()


async def jobs(scene: Scene, who: Speaker | None = None) -> list[str]:
    """Return which jobs somebody is told of, after all that was said on his topic before."""
    answer = await scene.ask(who or scene.ann, JobQuery(), JobList)
    assert isinstance(answer, JobList)
    return [status.job for status in answer.jobs]
