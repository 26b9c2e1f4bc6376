"""Users: they submit jobs at random sites, some at a time, for as long as they are told to."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import numpy as np
from onnx import helper

import small_models
from fakes.programs import small_order
from fakes.sites import SITES
from resonator.errors import Refused, Unreachable
from resonator.jobspec import Budget, Measure, TargetSpec, TuningJob
from resonator.messages import JobStatus
from soak.town import Town

AT_A_TIME = 3
LOOK_S = 3.0
TRIALS = (8, 16, 24)
SIZES = (32, 48, 64, 96)


class Traffic:
    """Keeps a few jobs under way; `refusals` says what users were told instead of `accepted`."""

    def __init__(self, town: Town, dice: random.Random) -> None:
        self.refusals: Counter[str] = Counter()
        self.statuses: dict[str, JobStatus] = {}
        self._town, self._dice = town, dice
        self._models = [_perceptron(town.folder / f"model-{size}.onnx", size) for size in SIZES]

    @property
    def live(self) -> int:
        """How many jobs have been accepted and are not known to have ended."""
        return sum(
            job not in self.statuses or not self.statuses[job].state.ended for job in self._town.accepted
        )

    async def run(self) -> None:
        """Submit jobs until cancelled."""
        while True:
            await self.look()
            if self.live < AT_A_TIME:
                await self._submit()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> bool:
        """Ask the hub for the status of all jobs; return whether it answered."""
        try:
            async with self._town.fed.client(timeout=5.0) as client:
                self.statuses |= {status.job: status for status in await client.jobs()}
        except (Unreachable, Refused):
            return False
        return True

    async def _submit(self) -> None:
        site, model = self._dice.choice(SITES), self._dice.choice(self._models)
        try:
            async with self._town.fed.client(site) as client:
                self._town.accepted.append(await client.submit(self._order(), model))
        except (Unreachable, Refused) as error:
            self.refusals[f"{type(error).__name__}: {str(error)[:100]}"] += 1

    async def idle_boxes(self) -> int:
        """Return how many boxes the hub sees idle; none when it does not answer."""
        try:
            async with self._town.fed.client(timeout=5.0) as client:
                return sum(device.state == "idle" for device in await client.devices())
        except (Unreachable, Refused):
            return 0

    def _order(self) -> TuningJob:
        """A job whose kernels take a while to measure, so that boxes hold some; half are for one box."""
        job = small_order(self._dice.choice(TRIALS))
        measure = Measure(number=1, repeat=2, min_repeat_ms=self._dice.choice((20, 100)))
        budget = Budget(trials=job.spec.budget.trials, again=True)
        targets = (job.spec.target, TargetSpec(device=self._dice.choice(sorted(self._town.boxes))))
        body = {"measure": measure, "budget": budget, "target": self._dice.choice(targets)}
        return job.model_copy(update={"spec": job.spec.model_copy(update=body)})


def _perceptron(path: Path, size: int) -> Path:
    """Write a model with one product of matrices."""
    weights = np.random.default_rng(size).standard_normal((64, size)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Relu", ["product"], ["y"]),
    ]
    path.write_bytes(small_models.model(nodes, {"x": [32, 64]}, ["y"], {"w": weights}))
    return path
