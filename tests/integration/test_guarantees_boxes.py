"""Boxes die, are stopped and find their disks full in the middle of jobs, at a broker that is no better."""

from __future__ import annotations

import asyncio
from pathlib import Path

import small_models
from fakes.brokers import embedded
from fakes.disks import SmallDisk, small_disk
from fakes.guarantees import breaches, unfetchable
from fakes.household import Household, Member, household
from fakes.programs import LONG_S, small_order
from resonator.client.client import Client
from resonator.jobspec import TargetSpec, TuningJob
from resonator.messages import JobState
from resonator_hub.broker.faults import Faults

TRIALS = 8
STEPS = (
    ("outbox", "after", "2"),
    ("acknowledged", "before", "1"),
    ("window:closed", "before", "1"),
)
"""Deaths of a box within one job, in this order."""
BAD = Faults(lose=0.02, repeat=0.2, delay_s=(0.0, 0.05), reorder=True, seed=5)
"""What the broker does to every message meanwhile."""
MEASURED = '"event": "measured"'


async def test_boxes_that_die_or_stop_or_have_no_room_lose_and_double_nothing(tmp_path: Path) -> None:
    names = ("mortal", "stopped", "full")
    with small_disk(tmp_path / "full", 24) as disk:
        async with embedded() as broker, household(tmp_path, broker.url, names) as house:
            broker.faults = BAD
            mortal, stopped, full = house.boxes.values()
            await house.start_hub()
            await mortal.start(*STEPS[0])
            await stopped.start()
            await full.start()
            died = asyncio.Event()
            async with Client.connect(house.url) as client:
                await submit(house, client)
                await asyncio.gather(dies(mortal, died), stops(stopped, died), fills(full, disk))
                await succeeded(house, client)
            await house.rest()
            assert breaches(house.evidence()) == []


async def dies(box: Member, died: asyncio.Event) -> None:
    """Have a box die at one step after the other; `died` is set at the second death."""
    for step in STEPS[1:]:
        await box.doomed()
        if len(box.lives) > 1:
            died.set()
        await box.start(*step)
    await box.doomed()
    await box.start()


async def stops(box: Member, until: asyncio.Event) -> None:
    """Stop a box while it measures, and have it go on later."""
    await box.life.logged(MEASURED, 2)
    with box.frozen():
        await asyncio.wait_for(until.wait(), LONG_S)


async def fills(box: Member, disk: SmallDisk | None) -> None:
    """Fill a box's disk while it measures; make room when it has ended of it, and start it again."""
    await box.life.logged(MEASURED, 2)
    if disk is None:
        return
    disk.fill()
    assert await box.life.ended() == 1
    assert "disk is full" in box.life.log
    assert "Traceback" not in box.life.log, box.life.log
    disk.free()
    await box.start()


async def submit(house: Household, client: Client) -> None:
    """Submit a job for each box."""
    model = house.folder / "small.onnx"
    model.write_bytes(small_models.perceptron())
    for name in house.boxes:
        house.accepted.append(await client.submit(order(name), model))


def order(box: str) -> TuningJob:
    """A small job for one box, that does not take over what another job has found."""
    job = small_order(TRIALS)
    budget = job.spec.budget.model_copy(update={"again": True})
    body = job.spec.model_copy(update={"target": TargetSpec(device=f"local/{box}"), "budget": budget})
    return job.model_copy(update={"spec": body})


async def succeeded(house: Household, client: Client) -> None:
    """Wait until every job has succeeded, and fetch its bundle."""
    for job in house.accepted:
        status = await asyncio.wait_for(client.wait(job), LONG_S)
        assert status.state is JobState.SUCCEEDED, status.failure
    assert await unfetchable(client, house.books(), house.folder) == []
