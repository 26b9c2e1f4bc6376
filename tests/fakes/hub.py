"""A hub that only talks: for tests of clients. It takes jobs in, tells their status, and hands out blobs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import zlib
from collections.abc import AsyncIterator

from resonator.bus import topics
from resonator.bus.mqtt import MqttBus
from resonator.bus.peer import Peer, Received
from resonator.failures import Failure, FailureKind
from resonator.messages import (
    MAX_CHUNK,
    BenchRequest,
    BlobAbsent,
    BlobChunk,
    BlobRef,
    BlobRequest,
    DeviceDrain,
    DeviceList,
    DeviceQuery,
    DeviceReport,
    DeviceUndrain,
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

SITE = "local"


class TalkingHub:
    """Keeps `statuses` by job and `blobs` by digest; `asked` holds every request once."""

    def __init__(self, bus: MqttBus) -> None:
        self.peer = Peer(bus, "hub")
        self.asked: list[Message] = []
        self.statuses: dict[str, JobStatus] = {}
        self.blobs: dict[str, bytes] = {}
        self.devices: tuple[DeviceReport, ...] = ()
        self.page = 500
        """How many devices fit into one answer."""
        self.reason = ""
        """Why every submission is rejected, if it is."""
        self.chunks: asyncio.Queue[BlobChunk] = asyncio.Queue()
        for kind in (JobSubmit, BenchRequest):
            self.peer.on(kind, self._take_in)
        self.peer.on(JobQuery, self._tell)
        self.peer.on(JobCancel, self._cancel)
        self.peer.on(DeviceQuery, self._list_devices)
        for drain in (DeviceDrain, DeviceUndrain):
            self.peer.on(drain, self._drain)
        self.peer.on(BlobRequest, self._give)
        self.peer.on(BlobChunk, self._keep)

    async def announce(self, session: int = 1, *, online: bool = True) -> None:
        state = HubState(status="online" if online else "offline", session=session)
        await self.peer.send(topics.hub_state(SITE, "main"), state, retain=True)

    async def publish(self, status: JobStatus) -> None:
        self.statuses[status.job] = status
        await self.peer.send(topics.job_status(SITE, status.job), status, retain=True)

    def keep(self, data: bytes) -> BlobRef:
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return BlobRef(digest=digest, size=len(data))

    async def _answer(self, received: Received, message: Message) -> None:
        assert received.reply_to is not None
        await self.peer.send(received.reply_to, message, corr=received.id)

    async def _take_in(self, received: Received) -> None:
        request = received.message
        assert isinstance(request, (JobSubmit, BenchRequest))
        self.asked.append(request)
        blob = request.model if isinstance(request, JobSubmit) else request.bundle
        if self.reason:
            failure = Failure(kind=FailureKind.MODEL_INVALID, detail=self.reason)
            await self._answer(received, Rejected(failure=failure))
        elif blob.data is not None:
            self.keep(zlib.decompress(blob.data))
            await self._accept(received, request.job)
        else:
            pulled = asyncio.ensure_future(self._pull(received, request.job, blob))
            self.asked_for = pulled

    async def _accept(self, received: Received, job: str) -> None:
        await self.publish(JobStatus(job=job, name=job, state=JobState.QUEUED))
        await self._answer(received, JobAccepted(job=job))

    async def _pull(self, received: Received, job: str, blob: BlobRef) -> None:
        topic = topics.client_dn(received.address.site, received.address.name, "blob")
        pieces = []
        for offset in range(0, blob.size, MAX_CHUNK):
            length = min(MAX_CHUNK, blob.size - offset)
            await self.peer.send(topic, BlobRequest(digest=blob.digest, offset=offset, length=length))
            pieces.append((await self.chunks.get()).data)
        self.keep(b"".join(pieces))
        await self._accept(received, job)

    async def _keep(self, received: Received) -> None:
        assert isinstance(received.message, BlobChunk)
        self.chunks.put_nowait(received.message)

    async def _tell(self, received: Received) -> None:
        assert isinstance(received.message, JobQuery)
        wanted = received.message.job
        if wanted is None:
            await self._answer(received, JobList(jobs=tuple(self.statuses.values())))
        elif wanted in self.statuses:
            await self._answer(received, JobList(jobs=(self.statuses[wanted],)))
        else:
            failure = Failure(kind=FailureKind.JOB_INVALID, detail=f"job {wanted!r} is not known")
            await self._answer(received, Rejected(failure=failure))

    async def _cancel(self, received: Received) -> None:
        assert isinstance(received.message, JobCancel)
        status = self.statuses[received.message.job].model_copy(update={"state": JobState.CANCELED})
        await self.publish(status)
        await self._answer(received, status)

    async def _drain(self, received: Received) -> None:
        request = received.message
        assert isinstance(request, (DeviceDrain, DeviceUndrain))
        self.asked.append(request)
        await self._answer(received, DeviceList(devices=self.devices[:1]))

    async def _list_devices(self, received: Received) -> None:
        query = received.message
        assert isinstance(query, DeviceQuery)
        later = [report for report in self.devices if report.device > query.after]
        await self._answer(
            received, DeviceList(devices=tuple(later[: self.page]), more=len(later) > self.page)
        )

    async def _give(self, received: Received) -> None:
        request = received.message
        assert isinstance(request, BlobRequest)
        data = self.blobs.get(request.digest)
        if data is None:
            await self._answer(received, BlobAbsent(digest=request.digest))
            return
        piece = data[request.offset : request.offset + request.length]
        chunk = BlobChunk(digest=request.digest, offset=request.offset, total=len(data), data=piece)
        await self._answer(received, chunk)


@contextlib.asynccontextmanager
async def talking_hub(url: str, *, online: bool = True) -> AsyncIterator[TalkingHub]:
    """Run a talking hub on the broker at `url`."""
    async with MqttBus(url) as bus:
        hub = TalkingHub(bus)
        await bus.subscribe(*topics.for_hub())
        await bus.wait_connected(10)
        serving = asyncio.create_task(hub.peer.serve())
        if online:
            await hub.announce()
        try:
            yield hub
        finally:
            serving.cancel()
            await asyncio.wait({serving})
