"""Client: submit, follow, cancel, fetch, bench; one connection to a site's broker."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import zlib
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from typing_extensions import Self

from resonator.bus import topics
from resonator.bus.mqtt import MqttBus
from resonator.bus.peer import Peer, Received
from resonator.bus.port import Bus
from resonator.client.blobs import Blobs
from resonator.client.order import name_for, new_job_id, read_bytes
from resonator.client.presence import HubPresence
from resonator.errors import BusUnreachable, InputInvalid, Refused
from resonator.ids import NAME_RULE, JobId, is_name
from resonator.jobspec import Measure, TuningJob
from resonator.messages import (
    MAX_INLINE,
    MAX_REASON,
    BenchRequest,
    BlobRef,
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
    JobStatus,
    JobSubmit,
    Message,
    SiteList,
    SiteQuery,
    SiteReport,
)
from resonator.settings import DEFAULT_BROKER, DEFAULT_SITE
from resonator.trust import credentials_for
from resonator.trust.seal import Seal

M = TypeVar("M", bound=Message)
LOOK_S = 60.0
"""After how long without news of a job that is followed the hub is asked, in seconds."""
ATTEMPTS = 3
"""How often a question is put before the hub counts as gone: two messages in a row may well be lost."""
_PULL_RATE = 64 * 1024
"""Bytes a second, half of 1 Mbit/s, that a hub must at least pull while it considers a submission."""


class Client:
    """A user's side of the bus; an async context manager, connected once entered.

    Every call raises `BusUnreachable` when broker or hub do not answer, `Refused` with the hub's reason, and
    `InputInvalid` for what is wrong on this side.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        broker: str,
        site: str,
        timeout: float = 10.0,
        name: str | None = None,
        seal: Seal | None = None,
    ) -> None:
        if not is_name(site):
            raise InputInvalid(f"site {site!r} is not a name: {NAME_RULE}")
        self.broker, self.site, self.timeout = broker, site, timeout
        self._bus = bus
        self._name = name or f"client-{secrets.token_hex(4)}"
        self._peer = Peer(bus, self._name, seal)
        self._hubs = HubPresence()
        self._blobs = Blobs(self._peer, site, self._name)
        self._followers: dict[str, set[asyncio.Queue[JobStatus]]] = {}
        self._serving: asyncio.Task[None] | None = None
        self._peer.on(HubState, self._hubs.heard)
        self._peer.on(JobStatus, self._hear_status)

    @classmethod
    def connect(
        cls,
        broker: str = DEFAULT_BROKER,
        site: str = DEFAULT_SITE,
        *,
        timeout: float = 10.0,
        identity: Path | None = None,
        insecure: bool = False,
    ) -> Client:
        """Make a client of the broker at `broker`; `timeout` in seconds bounds each wait for an answer.

        `identity` is the folder of the user's key and certificate, which a broker of `mqtts://` asks for;
        `insecure` allows a broker on another machine without TLS.
        """
        credentials = credentials_for(broker, identity, insecure=insecure)
        if credentials is None:
            return cls(MqttBus(broker, publish_timeout_s=timeout), broker=broker, site=site, timeout=timeout)
        party = credentials.party
        if party.site != site:
            raise InputInvalid(f"{identity} is the identity of {party.user}; the site here is {site}")
        bus = MqttBus(broker, publish_timeout_s=timeout, tls=credentials.context())
        seal = Seal(credentials)
        return cls(bus, broker=broker, site=site, timeout=timeout, name=party.name, seal=seal)

    async def __aenter__(self) -> Self:
        await self._bus.subscribe(*topics.for_client(self.site, self._name), topics.hubs())
        await self._bus.start()
        self._serving = asyncio.create_task(self._peer.serve(), name=f"{self._name} listens")
        try:
            await self._bus.wait_connected(self.timeout)
        except BusUnreachable:
            await self._close()
            raise BusUnreachable(
                f"no broker answers at {self.broker} (tried for {self.timeout:g} s): start one with "
                "`resonator hub` or mosquitto, or name another with --broker or RESONATOR_BROKER"
            ) from None
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait({self._serving})
        await self._bus.close()

    async def wait_for_hub(self, patience: float) -> None:
        """Return once a hub is online; raises `BusUnreachable` after `patience` seconds without one."""
        await self._hubs.wait_online(self.broker, patience=patience)

    # --- jobs ---------------------------------------------------------------------------------------------

    async def submit(self, job: TuningJob, model: Path) -> JobId:
        """Have the ONNX file `model` tuned as `job` says; returns its id once the hub has taken it in."""
        data = read_bytes(model, "model")
        job_id = new_job_id(job.metadata.name)
        with self._offered(data) as blob:
            request = JobSubmit(job=job_id, spec=job, model=blob)
            accepted = await self._ask(request, JobAccepted, pulled=0 if blob.data else blob.size)
        return JobId(accepted.job)

    async def bench(self, bundle: Path, device: str | None = None, measure: Measure | None = None) -> JobId:
        """Have a bundle measured on a device, in a window of its own; returns the id of that job."""
        data = read_bytes(bundle, "bundle")
        job_id = new_job_id(f"bench-{name_for(bundle)}")
        with self._offered(data) as blob:
            request = BenchRequest(job=job_id, bundle=blob, device=device, measure=measure or Measure())
            accepted = await self._ask(request, JobAccepted, pulled=0 if blob.data else blob.size)
        return JobId(accepted.job)

    async def jobs(self) -> tuple[JobStatus, ...]:
        """List the hub's jobs, newest first."""
        return (await self._ask(JobQuery(), JobList)).jobs

    async def job(self, job: str) -> JobStatus:
        """Return a job's status; `job` is its id or a beginning that fits no other."""
        if is_name(job) and (status := await self._find(job)) is not None:
            return status
        fitting = [status.job for status in await self.jobs() if status.job.startswith(job)]
        if len(fitting) > 1:
            some = ", ".join(fitting[:5])
            raise InputInvalid(f"job {job!r} fits {len(fitting)} jobs ({some}); give more of the id")
        # The list leaves out the tasks of older jobs: ask again by the whole id.
        if not fitting or (status := await self._find(fitting[0])) is None:
            raise InputInvalid(f"the hub knows no job {job!r}; `resonator jobs` lists what it knows")
        return status

    async def _find(self, job: str) -> JobStatus | None:
        """Return the status of the job with this very id, if there is one."""
        try:
            found = (await self._ask(JobQuery(job=job), JobList)).jobs
        except Refused:
            return None
        return found[0] if found else None

    async def follow(self, job: str) -> AsyncIterator[JobStatus]:
        """Yield a job's status now and at each change, until it has ended."""
        status = await self.job(job)
        queue: asyncio.Queue[JobStatus] = asyncio.Queue()
        followers = self._followers.setdefault(status.job, set())
        followers.add(queue)
        try:
            yield status
            if not status.state.ended:
                await self._bus.subscribe(topics.job_status(self.site, status.job))
                if self._peer.is_sealed:  # nothing is retained for submitters: it may have ended meanwhile
                    queue.put_nowait(await self.job(status.job))
            while not status.state.ended:
                news = await self._news(queue, status)
                if news != status:
                    yield news
                status = news
        finally:
            followers.discard(queue)

    async def _news(self, queue: asyncio.Queue[JobStatus], known: JobStatus) -> JobStatus:
        """Wait for a job's next status; what was published may be lost on its way, the last one too."""
        try:
            return await asyncio.wait_for(queue.get(), LOOK_S)
        except asyncio.TimeoutError:
            pass
        with contextlib.suppress(BusUnreachable):
            return await self.job(known.job)
        return known

    async def wait(self, job: str) -> JobStatus:
        """Wait until a job has ended; returns its last status."""
        async for status in self.follow(job):
            last = status
        return last

    async def cancel(self, job: str) -> JobStatus:
        """End a job; returns its status, which has ended or is about to."""
        status = await self.job(job)
        if status.state.ended:
            return status
        return await self._ask(JobCancel(job=status.job), JobStatus)

    async def fetch(self, job: str, path: Path) -> JobStatus:
        """Write a job's bundle to `path`, whole and verified; a broken-off pull goes on where it was."""
        status = await self.job(job)
        if status.bundle is None:
            why = f": {status.failure}" if status.failure else ""
            raise Refused(f"job {status.job} is {status.state.value} and has no bundle{why}")
        await self._blobs.pull(status.bundle, path)
        return status

    # --- sites and devices --------------------------------------------------------------------------------

    async def sites(self) -> tuple[SiteReport, ...]:
        """List the sites: how they are linked, what waits there; those that are cut off first."""
        return (await self._ask(SiteQuery(), SiteList)).sites

    async def devices(self) -> tuple[DeviceReport, ...]:
        """List the fleet as the hub sees it."""
        page = await self._ask(DeviceQuery(), DeviceList)
        reports = list(page.devices)
        while page.more and page.devices:
            page = await self._ask(DeviceQuery(after=reports[-1].device), DeviceList)
            reports += page.devices
        return tuple(reports)

    async def device(self, name: str) -> DeviceReport:
        """Return one device by NAME or SITE/NAME."""
        reports = await self.devices()
        fitting = [report for report in reports if name in (report.device, report.device.partition("/")[2])]
        if len(fitting) == 1:
            return fitting[0]
        known = ", ".join(report.device for report in (fitting or reports)[:20]) or "none yet"
        if fitting:
            raise InputInvalid(f"device {name!r} is at several sites ({known}); write SITE/NAME")
        raise InputInvalid(f"the hub knows no device {name!r}; it knows {known}")

    async def drain(self, name: str, reason: str = "") -> DeviceReport:
        """Keep a device, NAME or SITE/NAME, from getting further windows; `reason` is for those who wait."""
        if len(reason) > MAX_REASON:
            raise InputInvalid(f"the reason has {len(reason)} characters; at most {MAX_REASON} are accepted")
        return (await self._ask(DeviceDrain(device=name[:128], reason=reason), DeviceList)).devices[0]

    async def undrain(self, name: str) -> DeviceReport:
        """Have a drained device granted again."""
        return (await self._ask(DeviceUndrain(device=name[:128]), DeviceList)).devices[0]

    # --- within -------------------------------------------------------------------------------------------

    async def _ask(self, message: Message, answer: type[M], *, pulled: int = 0) -> M:
        """Ask the site's hub; `pulled` is how many bytes it will want to pull before it answers."""
        await self.wait_for_hub(min(self.timeout, 3.0))
        try:
            return await self._peer.request(
                topics.client_up(self.site, self._name),
                message,
                answer,
                reply_to=topics.client_dn(self.site, self._name),
                timeout=self.timeout,
                attempts=ATTEMPTS + round(pulled / _PULL_RATE / self.timeout),
            )
        except BusUnreachable as error:
            raise BusUnreachable(f"the hub does not answer: {error}") from None

    @contextlib.contextmanager
    def _offered(self, data: bytes) -> Iterator[BlobRef]:
        """Give a reference to `data`, with the bytes themselves where they fit, or else to be pulled."""
        packed = zlib.compress(data) if len(data) <= MAX_INLINE else b""
        digest = sha256(data).hexdigest()
        if 0 < len(packed) <= MAX_INLINE:
            yield BlobRef(digest=digest, size=len(data), data=packed)
            return
        with self._blobs.offered(digest, data):
            yield BlobRef(digest=digest, size=len(data))

    async def _hear_status(self, received: Received) -> None:
        status = received.message
        assert isinstance(status, JobStatus)
        for queue in self._followers.get(status.job, ()):
            queue.put_nowait(status)
