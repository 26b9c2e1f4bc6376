"""Somebody who wants a model tuned: submits it until it is accepted, follows it, fetches its bundle."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from resonator.bus.backoff import Backoff
from resonator.bus.mqtt import MqttBus
from resonator.client import Client
from resonator.errors import BusUnreachable, ResonatorError
from resonator.jobspec import TuningJob
from resonator.messages import JobAccepted, JobState, JobStatus, JobSubmit
from simulation.world.chance import stream
from simulation.world.host import Host
from simulation.world.network import CLOUD
from simulation.world.process import Process

if TYPE_CHECKING:
    from simulation.world.fleet import World

T = TypeVar("T")
ANSWER_S, AGAIN_S = 10.0, 20.0


class User:
    """One user with one job and the real client, at the hub's broker or at a site's."""

    def __init__(
        self,
        world: World,
        name: str,
        broker: str,
        spec: TuningJob,
        after_s: float,
        folder: Path,
        cancel_after_s: float | None = None,
    ) -> None:
        self.world, self.name, self.job = world, name, f"job-{name}"
        self.host = Host(world, name, self.run)
        self.done = False
        self._site = "local" if broker == CLOUD else broker
        self._broker = broker
        self._spec = spec
        self._after_s = after_s
        self._cancel_after_s = cancel_after_s
        self._folder = folder
        self._random = stream(world.seed, f"user {name}")
        self._model = self._random.randbytes(100 if self._random.random() < 0.7 else 40_000)

    async def run(self, process: Process) -> int:
        """Be a user until the job has ended and its bundle is here."""
        await asyncio.sleep(self._after_s)
        while not self.done:
            await self._try()
        self.host.wanted = False
        return 0

    async def _try(self) -> None:
        try:
            async with self._client() as client:
                await self._have_it_tuned(client)
        except ResonatorError as error:
            self.world.watch.tell(f"{self.name} has no broker: {error}")
            await asyncio.sleep(AGAIN_S)

    def _client(self) -> Client:
        url = f"mqtt://{self._broker}:1883"
        backoff = Backoff(random=random.Random(self._random.random()))
        bus = MqttBus(url, client_id=f"user-{self.name}", publish_timeout_s=ANSWER_S, backoff=backoff)
        return Client(bus, broker=url, site=self._site, timeout=ANSWER_S, name=self.name)

    async def _have_it_tuned(self, client: Client) -> None:
        """Submit the job, see its end, fetch its bundle; begin anew if the hub that accepted it is gone."""
        path = self._folder / self.name
        while not self.done:
            await self._patiently(lambda: self._submit(client))
            self.world.watch.accepts(self.job)
            if self._cancel_after_s is not None:
                await asyncio.sleep(self._cancel_after_s)
                await self._patiently(lambda: client.cancel(self.job))
            status = await self._patiently(lambda: client.wait(self.job))
            self.done = status is not None and self._is_over(status)
            if status is not None and status.bundle is not None:
                fetched = await self._patiently(lambda: client.fetch(self.job, path))
                self.done = fetched is not None and self._is_bundle(path, fetched)

    async def _submit(self, client: Client) -> JobAccepted:
        """Submit the job by its one id, however often: `Client.submit` would make another id each time."""
        with client._offered(self._model) as blob:
            return await client._ask(JobSubmit(job=self.job, spec=self._spec, model=blob), JobAccepted)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """Ask until there is an answer; None if nobody knows the job any more."""
        while True:
            try:
                return await ask()
            except BusUnreachable as error:
                self.world.watch.tell(f"{self.name} is not answered: {error}")
            except ResonatorError as error:
                self.world.refused(self.name, self.job, str(error))
                if self.job in self.world.watch.accepted:
                    return None
            await asyncio.sleep(AGAIN_S)

    def _is_over(self, status: JobStatus) -> bool:
        watch = self.world.watch
        watch.job_ended(self.job, status.state.value)
        if status.state is JobState.FAILED and status.failure is None:
            watch.violated(f"{self.job} has failed without a reason")
        if status.state is JobState.SUCCEEDED and status.bundle is None:
            watch.violated(f"{self.job} has succeeded without a bundle")
        return True

    def _is_bundle(self, path: Path, status: JobStatus) -> bool:
        assert status.bundle is not None, "only bundles are fetched"
        if hashlib.sha256(path.read_bytes()).hexdigest() != status.bundle.digest:
            self.world.watch.violated(f"the bundle of {self.job} is not what was announced")
        path.unlink()
        return True
