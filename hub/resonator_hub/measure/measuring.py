"""Performs Profile: pushes kernels to devices, takes each result once, acknowledges it when it is kept."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from functools import partial

import structlog

from resonator.bus.blobs import BlobMissing, Blobs, BlobsUnreachable
from resonator.bus.peer import Peer, Received, new_id
from resonator.errors import BusUnreachable
from resonator.failures import Failure, FailureKind, Fault
from resonator.ids import CandidateId, DeviceId, JobId
from resonator.messages import KernelPush, KernelResult
from resonator_hub import inline
from resonator_hub.door import admit, device_of, to_device
from resonator_hub.fleet import Acks, Links, Registry
from resonator_hub.inbox import Inbox
from resonator_hub.jobs.store import Jobs
from resonator_hub.measure import plausible
from resonator_hub.measure.asked import Asked
from resonator_hub.measure.claims import Claims
from resonator_hub.measure.lane import Lane, Push
from resonator_hub.records import Catalog
from resonator_hub.scheduler.commands import Profile
from resonator_hub.scheduler.events import Measured
from resonator_hub.tasks import Tasks, happens
from resonator_hub.watch.keys import keys_of

log = structlog.get_logger(__name__)
REPEAT_S = 15.0
"""After how long without a word about what is outstanding it is pushed again."""


class Measuring:
    """One lane a device, from the opening of its window to its end."""

    def __init__(
        self,
        peer: Peer,
        inbox: Inbox,
        acks: Acks,
        blobs: Blobs,
        catalog: Catalog,
        jobs: Jobs,
        registry: Registry,
        links: Links,
        *,
        repeat_s: float = REPEAT_S,
    ) -> None:
        self._peer = peer
        self._inbox = inbox
        self._acks = acks
        self._blobs = blobs
        self._catalog = catalog
        self._jobs = jobs
        self._registry = registry
        self._links = links
        self._repeat_s = repeat_s
        self._asked = Asked()
        self._claims = Claims()
        self._lanes: dict[DeviceId, Lane] = {}
        self._pushed: dict[DeviceId, set[str]] = {}
        self._heard: dict[DeviceId, asyncio.Event] = {}
        self._tasks = Tasks()
        admit(peer, KernelResult, ("dev",), self._on_result)

    # --- what the scheduler asks ----------------------------------------------------------------------------

    def remember(self, command: Profile) -> None:
        """Expect the result of a kernel that an earlier life of this hub pushed."""
        self._asked.note(command)

    def asked(self) -> Iterator[Profile]:
        """Yield what is to be remembered of this life: each push whose result may come."""
        return self._asked.commands()

    def forget(self, job: JobId) -> None:
        """Expect nothing more for a job that has ended."""
        self._asked.forget(job)

    def push(self, command: Profile) -> None:
        """Have a kernel staged and measured, as soon as the device's credit allows."""
        lane = self._lanes.get(command.device)
        if lane is None or lane.epoch != command.epoch:
            log.info("no such window any more", **keys_of(command))
            return
        if command.candidate in lane:
            return
        self._asked.note(command)
        reference = self._reference(command)
        self._pushed[command.device].update({command.blob, reference} if reference else {command.blob})
        try:
            size = self._size(command.blob) + self._size(reference)
        except BlobMissing as error:
            self._fail(command, FailureKind.BUILD_ERROR, f"the kernel is lost: {error}")
            return
        except BlobsUnreachable as error:
            self._fail(command, FailureKind.STAGE_FAILED, str(error))
            return
        if size > lane.credit:
            detail = f"{command.candidate} takes {size} bytes, the device holds {lane.credit} at most"
            self._fail(command, FailureKind.DEVICE_REFUSED, detail)
            return
        lane.add(Push(command, size, new_id()))
        self._pump(command.device, lane)

    def opened(self, device: DeviceId, epoch: int, credit: int) -> None:
        """Begin to push into a window."""
        self._claims.opened(device, epoch, time.monotonic())
        self._pushed[device] = set()
        lane = self._lanes[device] = Lane(epoch, credit)
        heard = self._heard[device] = asyncio.Event()
        self._tasks.start(device, self._repeat(device, lane, heard))

    def pushed(self, device: DeviceId, blob: str) -> bool:
        """Return whether a blob was pushed to a device in its present window, or else in its last one."""
        return blob in self._pushed.get(device, ())

    def waiting(self, device: DeviceId) -> int:
        """Return how many kernels were sent to a device and have no result yet."""
        lane = self._lanes.get(device)
        return 0 if lane is None else len(lane.outstanding)

    def ended(self, device: DeviceId) -> None:
        """Push nothing more into a device's window."""
        self._lanes.pop(device, None)
        self._heard.pop(device, None)
        self._tasks.stop(device)

    async def close(self) -> None:
        """Stop pushing."""
        await self._tasks.close()

    # --- within -------------------------------------------------------------------------------------------

    def _pump(self, device: DeviceId, lane: Lane) -> None:
        for push in lane.to_send():
            # All at once: the throughput must not depend on how long the broker takes to acknowledge.
            self._tasks.start((device, push.message_id), self._send(push, carried=True))

    async def _send(self, push: Push, *, carried: bool) -> None:
        try:
            await self._bring_near(push.command)
            message = self._message(push.command, carried=carried)
            topic = to_device(push.command.device, "kernel")
            await self._peer.send(topic, message, message_id=push.message_id)
        except BusUnreachable as error:
            log.warning("kernel not sent", **keys_of(push.command), reason=str(error))
        except BlobsUnreachable as error:
            log.warning("kernel not sent yet", candidate=push.command.candidate, reason=str(error))
        except BlobMissing as error:
            self._fail(push.command, FailureKind.BUILD_ERROR, f"the kernel is lost: {error}")

    def _reference(self, command: Profile) -> str | None:
        """Return what a model's outputs are compared with; None for a kernel, and for a bundle alone."""
        return self._jobs.get(command.job).reference if command.model else None

    async def _bring_near(self, command: Profile) -> None:
        """Have at hand what is pushed: read from afar in the loop, it would hold up everything else."""
        for digest in filter(None, (command.blob, self._reference(command))):
            if not self._blobs.near(digest):
                await asyncio.to_thread(self._blobs.read, digest, 0, 1)

    def _size(self, digest: str | None) -> int:
        return self._blobs.read(digest, 0, 0)[1] if digest else 0

    def _message(self, command: Profile, *, carried: bool) -> KernelPush:
        reference = self._reference(command)
        return KernelPush(
            epoch=command.epoch,
            job=command.job,
            candidate=command.candidate,
            blob=inline.reference(self._blobs, command.blob, inline=carried),
            device_kind="cuda" if command.target_kind == "cuda" else "cpu",
            arguments=() if command.model else self._catalog.arguments(command.blob),
            race_s=command.race_s,
            model=command.model,
            reference=inline.reference(self._blobs, reference, inline=carried) if reference else None,
        )

    async def _repeat(self, device: DeviceId, lane: Lane, heard: asyncio.Event) -> None:
        """Push again what nothing was heard of; without the bytes, which the device asks for if it must."""
        while self._lanes.get(device) is lane:
            if await happens(heard, self._repeat_s):
                heard.clear()
                continue
            if not self._links.reaches(device):
                continue  # the broker would keep it all until the link is there again
            for push in lane.outstanding:
                await self._send(push, carried=False)

    def _fail(self, command: Profile, kind: FailureKind, detail: str) -> None:
        at, failure = self._inbox.now(), Failure(kind=kind, detail=detail)
        device, epoch, job, candidate = command.device, command.epoch, command.job, command.candidate
        self._inbox.post(Measured(at, device, epoch, job, candidate, failure=failure))

    async def _on_result(self, received: Received, result: KernelResult) -> None:
        device, job, candidate = device_of(received), JobId(result.job), CandidateId(result.candidate)
        expected = self._asked.find(job, (device, result.epoch, candidate))
        self._note_progress(device, candidate)
        if isinstance(expected, str):
            self._refuse(received, expected, f"nobody asked {device} for {candidate} in {result.epoch}")
        elif received.id in expected.came:
            self._acks.send_when(expected.came[received.id], device, received.id)
        elif expected.missing == 0:
            self._refuse(received, "measured before", f"{candidate} in window {result.epoch}")
        elif bool(result.latencies) == (result.failure is not None):
            self._refuse(received, "invalid", f"{candidate}: latencies or a failure, one of them")
        else:
            event = _measured(self._inbox.now(), device, result)
            if (objection := self._objection(device, result, expected.command)) is not None:
                self._peer.refuse("implausible", received.topic, f"{candidate}: {objection}")
                event = _disbelieved(event, objection)
            taken = self._inbox.post(event)
            expected.missing -= 1
            expected.came[received.id] = taken
            self._acks.send_when(taken, device, received.id)

    def _objection(self, device: DeviceId, result: KernelResult, command: Profile) -> str | None:
        """Return why a result cannot be true, be it a latency or a failure."""
        objection = None
        if result.latencies:
            measure = self._jobs.get(command.job).spec.spec.measure
            box, arguments = self._registry.identity(device), partial(self._catalog.arguments, command.blob)
            objection = plausible.objection(result, command, measure, box, arguments)
        return objection or self._claims.objection(device, result.epoch, result.device_time, time.monotonic())

    def _refuse(self, received: Received, why: str, detail: str) -> None:
        """Count a result that changes nothing; acknowledged, so that it does not come again for ever."""
        self._acks.send(device_of(received), received.id)
        self._peer.refuse(why, received.topic, detail)

    def _note_progress(self, device: DeviceId, candidate: CandidateId) -> None:
        lane = self._lanes.get(device)
        if lane is not None:
            lane.done(candidate)
            self._heard[device].set()
            self._pump(device, lane)


def _measured(at: float, device: DeviceId, result: KernelResult) -> Measured:
    return Measured(
        at=at,
        device=device,
        epoch=result.epoch,
        job=JobId(result.job),
        candidate=CandidateId(result.candidate),
        latencies=result.latencies,
        failure=_failure(result.failure),
        raced=result.raced,
        # The journal is JSON, which knows no infinity.
        error=None if result.error is None else min(result.error, sys.float_info.max),
        device_time_s=result.device_time,
        joules=result.joules,
        conditions=result.conditions,
    )


def _disbelieved(event: Measured, objection: str) -> Measured:
    """Make a failure of the device's of what cannot be true: none of it is used."""
    failure = Failure(kind=FailureKind.IMPLAUSIBLE, detail=objection)
    return Measured(event.at, event.device, event.epoch, event.job, event.candidate, failure=failure)


def _failure(failure: Failure | None) -> Failure | None:
    """Return a device's failure as one that is the kernel's or the device's: it can judge no other."""
    if failure is None or failure.kind.fault in {Fault.KERNEL, Fault.DEVICE}:
        return failure
    return Failure(kind=FailureKind.DEVICE_REFUSED, detail=str(failure)[:500])
