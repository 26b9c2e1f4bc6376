"""Somebody who wants a model tuned: submits it until it is accepted, follows it, fetches its bundle."""

from __future__ import annotations

import asyncio
import hashlib
import random
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from resonator.bus import topics
from resonator.bus.backoff import Backoff
from resonator.bus.mqtt import MqttBus
from resonator.bus.peer import Peer, Received
from resonator.client.blobs import Blobs
from resonator.errors import Refused, ResonatorError
from resonator.jobspec import TuningJob
from resonator.messages import (
    BlobRef,
    HubState,
    JobAccepted,
    JobCancel,
    JobList,
    JobQuery,
    JobState,
    JobStatus,
    JobSubmit,
    Message,
    Rejected,
)
from simulation.world.chance import stream
from simulation.world.host import Host
from simulation.world.network import CLOUD
from simulation.world.process import Process

if TYPE_CHECKING:
    from simulation.world.fleet import World

M = TypeVar("M", bound=Message)
ANSWER_S, LOOK_S, AGAIN_S = 10.0, 30.0, 20.0


class User:
    """One user with one job, at the hub's broker or at a site's."""

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
        self._refused = False
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
        bus = MqttBus(
            f"mqtt://{self._broker}:1883",
            client_id=f"user-{self.name}",
            backoff=Backoff(random=random.Random(self._random.random())),
        )
        peer = Peer(bus, self.name)
        blobs = Blobs(peer, self._site, self.name)
        peer.on(HubState, _ignore)
        peer.on(JobStatus, self._hear)
        for late in (JobAccepted, JobList, Rejected):
            peer.on(late, _ignore)  # the answer to a question that was given up meanwhile
        await bus.subscribe(
            *topics.for_client(self._site, self.name), topics.job_status(self._site, self.job)
        )
        async with bus:
            serving = asyncio.ensure_future(peer.serve())
            await asyncio.sleep(self._after_s)
            while not self.done:
                await self._submit(peer, blobs)
                if self._cancel_after_s is not None:
                    await asyncio.sleep(self._cancel_after_s)
                    await self._ask(peer, JobCancel(job=self.job), JobStatus)
                status = await self._end(peer)
                self.done = status is not None and await self._fetch(blobs, status)
            serving.cancel()
            await asyncio.wait({serving})
        self.host.wanted = False
        return 0

    async def _submit(self, peer: Peer, blobs: Blobs) -> None:
        digest = hashlib.sha256(self._model).hexdigest()
        packed = zlib.compress(self._model) if len(self._model) < 1000 else None
        ref = BlobRef(digest=digest, size=len(self._model), data=packed)
        request = JobSubmit(job=self.job, spec=self._spec, model=ref)
        with blobs.offered(digest, self._model):
            while not await self._ask(peer, request, JobAccepted):
                await asyncio.sleep(AGAIN_S)
        self._refused = False
        self.world.watch.accepts(self.job)

    async def _end(self, peer: Peer) -> JobStatus | None:
        """Ask for the job until it has ended: a status that was published may be lost.

        Return None if nobody knows it any more, since it was another hub, which is gone, that accepted it.
        """
        while not self._refused:
            found = await self._ask(peer, JobQuery(job=self.job), JobList)
            if found is not None and found.jobs[0].state.ended:
                self._note(found.jobs[0])
                return found.jobs[0]
            await asyncio.sleep(LOOK_S)
        return None

    async def _fetch(self, blobs: Blobs, status: JobStatus) -> bool:
        """Fetch the bundle; return whether it is here, or there is none."""
        if status.bundle is None:
            if status.state is JobState.SUCCEEDED:
                self.world.watch.violated(f"{self.job} has succeeded without a bundle")
            return True
        path = self._folder / self.name
        while not await self._pull(blobs, status.bundle, path):
            await asyncio.sleep(AGAIN_S)
            if self.world.watch.hubs > 1:
                return False  # it may have been announced by a hub that is gone
        if hashlib.sha256(path.read_bytes()).hexdigest() != status.bundle.digest:
            self.world.watch.violated(f"the bundle of {self.job} is not what was announced")
        path.unlink()
        return True

    async def _pull(self, blobs: Blobs, bundle: BlobRef, path: Path) -> bool:
        try:
            await blobs.pull(bundle, path)
        except ResonatorError as error:
            self.world.watch.tell(f"{self.name} does not get the bundle: {error}")
            return False
        return True

    async def _ask(self, peer: Peer, request: JobSubmit | JobQuery | JobCancel, answer: type[M]) -> M | None:
        up, dn = topics.client_up(self._site, self.name), topics.client_dn(self._site, self.name)
        try:
            return await peer.request(up, request, answer, reply_to=dn, timeout=ANSWER_S, attempts=2)
        except Refused as error:
            self._refused = True
            self.world.refused(self.name, self.job, str(error))
        except ResonatorError as error:
            self.world.watch.tell(f"{self.name} is not answered: {error}")
        return None

    async def _hear(self, received: Received) -> None:
        status = received.message
        assert isinstance(status, JobStatus)
        if status.state.ended:
            self._note(status)

    def _note(self, status: JobStatus) -> None:
        self.world.watch.job_ended(self.job, status.state.value)
        if status.state is JobState.FAILED and status.failure is None:
            self.world.watch.violated(f"{self.job} has failed without a reason")


async def _ignore(received: Received) -> None:
    """It is for others, or too late."""
