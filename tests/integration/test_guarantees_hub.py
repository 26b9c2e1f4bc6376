"""Hub and broker die, are stopped and find their disks full, in the middle of jobs (docs/guarantees.md)."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

import small_models
from fakes.brokers import Mosquitto, mosquitto
from fakes.disks import SmallDisk, small_disk
from fakes.guarantees import breaches, unfetchable
from fakes.household import Household, household
from fakes.programs import LONG_S, small_order
from resonator.client.client import Client
from resonator.errors import BusUnreachable
from resonator.ids import JobId
from resonator.jobspec import TuningJob
from resonator.messages import JobState

TRIALS = 16
STEPS = (
    ("compute:build", "after", "3"),
    ("journal:Measured", "before", "3"),
)
"""Deaths of the hub within one job, in this order; the others are in `test_guarantees_steps.py`."""
MEASURED = '"event": "measured"'
IMPATIENT_S = 2.0


async def test_hub_and_broker_that_die_or_stop_lose_and_double_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "hub", 64) as disk:
        async with mosquitto() as broker, household(tmp_path, broker.url) as house:
            await house.start_hub(*STEPS[0])
            await house.box.start()
            async with Client.connect(house.url) as client:
                job = await submit(house, client)
                for step in STEPS[1:]:
                    await house.hub.doomed()
                    await house.start_hub(*step)
                await house.hub.doomed()
                await house.start_hub()
                await succeeded(house, client, job)
                # When that is over, the broker, too, is stopped and killed in the middle of another job
                job = await submit(house, client)
                await measures(house)
                await are_stopped(house, broker, client)
                await broker.stop(signal.SIGKILL)
                await broker.start()
                if disk is not None:
                    await measures(house)
                    await fills(house, disk)
                await succeeded(house, client, job)
            await house.rest()
            assert breaches(house.evidence()) == []


async def measures(house: Household) -> None:
    """Wait until the box has measured one more."""
    await house.box.life.logged(MEASURED, house.box.life.log.count(MEASURED) + 1)


async def fills(house: Household, disk: SmallDisk) -> None:
    """Fill the hub's disk; make room when the hub has ended of it, and start it again."""
    disk.fill()
    assert await house.hub.life.ended() == 1
    assert "cannot be written" in house.hub.life.log
    assert "Traceback" not in house.hub.life.log, house.hub.life.log
    disk.free()
    await house.start_hub()


async def are_stopped(house: Household, broker: Mosquitto, client: Client) -> None:
    """Stop the hub, then the broker, each until somebody has given up to wait for an answer."""
    with house.hub.frozen():
        async with Client.connect(house.url, timeout=IMPATIENT_S) as impatient:
            with pytest.raises(BusUnreachable):
                await impatient.jobs()
    assert await client.jobs()
    with broker.frozen(), pytest.raises(BusUnreachable):
        async with Client.connect(house.url, timeout=IMPATIENT_S):
            pass


async def submit(house: Household, client: Client) -> JobId:
    """Submit a job that does not take over what another has found."""
    model = house.folder / "small.onnx"
    model.write_bytes(small_models.perceptron())
    job = await client.submit(order(), model)
    house.accepted.append(job)
    return job


def order() -> TuningJob:
    job = small_order(TRIALS)
    budget = job.spec.budget.model_copy(update={"again": True})
    return job.model_copy(update={"spec": job.spec.model_copy(update={"budget": budget})})


async def succeeded(house: Household, client: Client, job: JobId) -> None:
    """Wait until a job has succeeded, and fetch the bundles of all."""
    status = await asyncio.wait_for(client.wait(job), LONG_S)
    assert status.state is JobState.SUCCEEDED, status.failure
    assert await unfetchable(client, house.books(), house.folder) == []
