"""The hub is killed at one step after the other of one job; the four guarantees hold (docs/guarantees.md)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import small_models
from fakes.brokers import mosquitto
from fakes.guarantees import breaches, unfetchable
from fakes.household import Household, household
from fakes.programs import LONG_S, small_order
from resonator.client.client import Client
from resonator.messages import JobState

TRIALS = 12
STEPS = (
    ("compute:build", "after", "3"),
    ("journal:Measured", "before", "3"),
    ("journal:Measured", "after", "2"),
    ("compute:compile_model", "after", "1"),
    ("journal:BundleDelivered", "before", "1"),
)
"""Deaths of the hub within one job, in this order; the others are in `test_guarantees_steps.py`."""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Household]:
    async with mosquitto() as broker, household(tmp_path, broker.url) as made:
        yield made


async def test_a_hub_that_is_killed_at_step_after_step_loses_and_doubles_nothing(
    house: Household, tmp_path: Path
) -> None:
    model = tmp_path / "small.onnx"
    model.write_bytes(small_models.perceptron())
    await house.start_hub(*STEPS[0])
    await house.box.start()
    async with Client.connect(house.url) as client:
        job = await client.submit(small_order(TRIALS), model)
        house.accepted.append(job)
        for step in STEPS[1:]:
            await house.hub.doomed()
            await house.start_hub(*step)
        await house.hub.doomed()
        await house.start_hub()
        status = await asyncio.wait_for(client.wait(job), LONG_S)
        assert status.state is JobState.SUCCEEDED, status.failure
        assert await unfetchable(client, house.books(), tmp_path) == []
    await house.rest()
    assert breaches(house.evidence()) == []
