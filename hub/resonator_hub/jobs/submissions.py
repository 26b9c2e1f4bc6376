"""Submissions: a job is checked at the door, journalled once, and only then accepted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from resonator import bundle
from resonator.bus.blobs import Blobs
from resonator.bus.peer import Received
from resonator.errors import BusUnreachable, InputInvalid, MessageInvalid, ResonatorError
from resonator.failures import FailureKind
from resonator.ids import JobId
from resonator.jobspec import Budget, JobBody, Metadata, ModelSpec, TargetSpec, TuningJob
from resonator.messages import BenchRequest, BlobRef, JobAccepted, JobSubmit, Message
from resonator_hub.frontends import ModelInvalid
from resonator_hub.inbox import Inbox
from resonator_hub.jobs.reception import Reception
from resonator_hub.jobs.requests import Desk, rejected
from resonator_hub.jobs.rights import who
from resonator_hub.jobs.serving import Serving
from resonator_hub.jobs.store import Job, Jobs
from resonator_hub.scheduler import Scheduler
from resonator_hub.scheduler.events import JobSubmitted
from resonator_hub.tasks import Tasks

AT_ONCE = 8
"""How many submissions are looked at at the same time; the others wait their turn."""

Check = Callable[[Job], Awaitable[None]]
"""Looks at a submission's model; raises ResonatorError with what is wrong with it."""


class Submissions:
    """Takes in jobs to tune and bundles to measure; the same one again is accepted again, and done once."""

    def __init__(
        self,
        desk: Desk,
        inbox: Inbox,
        scheduler: Scheduler,
        jobs: Jobs,
        blobs: Blobs,
        serving: Serving,
        reception: Reception,
    ) -> None:
        self._desk = desk
        self._inbox = inbox
        self._scheduler = scheduler
        self._jobs = jobs
        self._blobs = blobs
        self._serving = serving
        self._reception = reception
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._tasks = Tasks()
        self._accepting = asyncio.Lock()
        desk.serve(JobSubmit, self._on_submit)
        desk.serve(BenchRequest, self._on_bench)

    async def close(self) -> None:
        """Stop; whoever was not answered will ask again."""
        await self._tasks.close()
        await self._serving.close()

    async def _on_submit(self, received: Received, request: JobSubmit) -> None:
        site, client = received.address.site, received.address.name
        job = Job(JobId(request.job), request.spec, request.model.digest, site, client)
        self._begin(received, job, request.model, self._check_submission)

    async def _on_bench(self, received: Received, request: BenchRequest) -> None:
        site, client = received.address.site, received.address.name
        target = TargetSpec(device=request.device) if request.device else TargetSpec(kind="cpu")
        body = JobBody(
            model=ModelSpec(onnx="bundle"), target=target, budget=Budget(trials=1), measure=request.measure
        )
        spec = TuningJob(metadata=Metadata(name="bench"), spec=body)
        job = Job(JobId(request.job), spec, request.bundle.digest, site, client, bench=True)
        self._begin(received, job, request.bundle, self._check_bundle)

    def _begin(self, received: Received, job: Job, ref: BlobRef, check: Check) -> None:
        """Consider a submission aside, so that whoever else has something to say is heard meanwhile."""
        if received.id not in self._tasks:
            self._tasks.start(received.id, self._consider(received, job, ref, check))

    async def _consider(self, received: Received, job: Job, ref: BlobRef, check: Check) -> None:
        async with self._turns:
            answer = await self._decide(received, job, ref, check)
        self._desk.answer(received, answer)

    async def _decide(self, received: Received, job: Job, ref: BlobRef, check: Check) -> Message:
        if (answer := self._known(job)) is not None:
            return answer
        try:
            self._reception.weigh(ref.size, bench=job.bench)
            await self._serving.take(ref, job.site, job.client)
            await check(job)
        except (ModelInvalid, bundle.BundleInvalid) as error:
            return rejected(FailureKind.MODEL_INVALID, str(error))
        except MessageInvalid as error:
            return rejected(FailureKind.BLOB_CORRUPT, str(error))
        except BusUnreachable as error:
            return rejected(FailureKind.BLOB_CORRUPT, f"the model could not be fetched from you: {error}")
        except InputInvalid as error:
            return rejected(FailureKind.JOB_INVALID, str(error))
        except ResonatorError as error:
            return rejected(FailureKind.STAGE_FAILED, str(error))
        except OSError as error:
            return rejected(FailureKind.STAGE_FAILED, f"the hub cannot keep the model: {error.strerror}")
        async with self._accepting:  # the same job may have been looked at twice meanwhile
            return self._known(job) or await self._accept(received, job)

    def _known(self, job: Job) -> Message | None:
        """Return the answer to a job whose id was taken before; None for a new one."""
        known = self._jobs.find(job.job)
        if known is None:
            return None
        if known.content == job.content:
            return JobAccepted(job=job.job)
        detail = f"job {job.job!r} exists already with another model or description; choose another id"
        return rejected(FailureKind.JOB_INVALID, detail)

    async def _accept(self, received: Received, job: Job) -> Message:
        objection = self._scheduler.objection(job.order)
        if objection is not None:
            return rejected(objection.kind, objection.detail)
        submitted = JobSubmitted(self._inbox.now(), job.job, job.order, *who(received))
        await self._inbox.post(submitted, lambda connection: self._jobs.insert(connection, job))
        return JobAccepted(job=job.job)

    async def _check_submission(self, job: Job) -> None:
        model = await asyncio.to_thread(self._blobs.get, job.model)
        await self._reception.check(model, job.spec)

    async def _check_bundle(self, job: Job) -> None:
        manifest, _ = await asyncio.to_thread(lambda: bundle.read(self._blobs.get(job.model)))
        if job.spec.spec.target.device is not None:
            return
        kind = _kind_of(manifest.target)
        if kind != job.spec.spec.target.kind:
            raise InputInvalid(f"the bundle is for {kind}; name the device it is to be measured on")


def _kind_of(target: str) -> str:
    """Return what kind of offer a TVM target in JSON is for."""
    try:
        kind = json.loads(target)["kind"]
    except (ValueError, KeyError, TypeError):
        raise InputInvalid(f"the bundle's target is not a TVM target: {target[:100]!r}") from None
    return "cuda" if kind == "cuda" else "cpu"
