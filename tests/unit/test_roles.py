"""Trust in people: what each role may ask of a hub, by the certificate that a request is signed with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.compute import FakeCompute
from fakes.fleet_authority import ANN, BOB, BOX, HUB, OLGA, OTHER, VIEWER, Fleet
from fakes.orders import MODEL, carried, spec
from fakes.shell import Shell, identity, shell
from resonator.bus import topics
from resonator.failures import FailureKind
from resonator.ids import DeviceId, JobId
from resonator.messages import (
    BenchRequest,
    BlobChunk,
    BlobRequest,
    DeviceDrain,
    DeviceList,
    DeviceUndrain,
    JobAccepted,
    JobCancel,
    JobList,
    JobQuery,
    JobState,
    JobStatus,
    JobSubmit,
    Message,
    Rejected,
    SiteList,
)
from resonator.trust import Credentials, Party
from resonator.trust.seal import Seal
from resonator_hub.fleet import Registry
from resonator_hub.jobs.blob_rights import BlobRights
from resonator_hub.jobs.reception import Reception
from resonator_hub.jobs.requests import Desk, Requests
from resonator_hub.jobs.serving import Serving
from resonator_hub.jobs.store import Jobs
from resonator_hub.jobs.submissions import Submissions
from resonator_hub.scheduler import Scheduler
from resonator_hub.scheduler.events import (
    BlobFetched,
    DeviceDrained,
    DeviceSeen,
    DeviceUndrained,
    Event,
    HubStarted,
    JobCanceled,
    JobSubmitted,
    Offer,
)

DEVICE = DeviceId("lab/box")


class Office:
    """A hub's desk that hears only what is signed."""

    def __init__(self, base: Shell, scheduler: Scheduler, fleet: Fleet) -> None:
        self.base, self.scheduler, self._fleet = base, scheduler, fleet
        self.journal: list[Event] = []
        self.bundles: dict[str, tuple[JobId, ...]] = {}
        self.pushed: set[tuple[DeviceId, str]] = set()

    async def ask(self, party: Party, message: Message, channel: str = "request") -> Message:
        """Ask as somebody, and return the answer."""
        seal = Seal(Credentials.load(self._fleet.place(party)))
        spell = topics.device_up if party.role == "device" else topics.client_up
        topic = spell(party.site, party.name, channel)
        sent = await self.base.hear(topic, message, source=party.name, seal=seal)
        _, answer = await self.base.broker.answer_to(sent)
        await self.base.settle()
        self.journal += self.base.events
        while self.base.events:
            self.scheduler.step(self.base.events.pop(0))
        return answer

    async def fetch(self, party: Party, blob: str) -> bool:
        """Ask for a piece of a blob, and return whether it was given."""
        answer = await self.ask(party, BlobRequest(digest=blob, offset=0, length=1), "blob")
        return isinstance(answer, BlobChunk)

    async def deny(self, party: Party, message: Message) -> str:
        """Ask what is not for somebody, and return what he is told."""
        before = len(self.journal)
        answer = await self.ask(party, message)
        assert isinstance(answer, Rejected)
        assert answer.failure.kind is FailureKind.FORBIDDEN
        assert len(self.journal) == before
        return answer.failure.detail

    async def jobs_of(self, party: Party) -> list[str]:
        answer = await self.ask(party, JobQuery())
        assert isinstance(answer, JobList)
        return sorted(status.job for status in answer.jobs)


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    fleet = Fleet(tmp_path)
    async with shell(tmp_path, Seal(Credentials.load(fleet.place(HUB)))) as base:
        scheduler, jobs = Scheduler(), Jobs(base.database)
        scheduler.step(HubStarted(0.0, 1))
        registry, made = Registry(base.database), Office(base, scheduler, fleet)
        scheduler.step(DeviceSeen(0.0, DEVICE, 1, 0, "cpu", (Offer("cpu", "{}"),)))
        registry.keep(DEVICE, identity())
        rights = BlobRights(
            base.inbox,
            base.blobs,
            jobs,
            pushed=lambda device, digest: (device, digest) in made.pushed,
            bundle_of=lambda digest: made.bundles.get(digest, ()),
        )
        desk, serving = Desk(base.peer), Serving(base.peer, base.blobs, rights)
        Requests(desk, base.inbox, scheduler, registry, lambda: SiteList(sites=()), jobs)
        submissions = Submissions(
            desk, base.inbox, scheduler, jobs, base.blobs, serving, Reception(FakeCompute())
        )
        yield made
        await submissions.close()


def submission(job: str) -> JobSubmit:
    return JobSubmit(job=job, spec=spec(), model=carried(MODEL))


async def test_trust_a_viewer_looks_and_does_nothing(office: Office) -> None:
    assert await office.ask(ANN, submission("hers")) == JobAccepted(job="hers")
    assert await office.jobs_of(VIEWER) == ["hers"]
    for act in (
        submission("mine"),
        JobCancel(job="hers"),
        BenchRequest(job="b", bundle=carried(MODEL), measure=spec().spec.measure),
    ):
        said = await office.deny(VIEWER, act)
        assert said.endswith("is for operators and submitters; lab/client/vera is a viewer")
    assert await office.jobs_of(VIEWER) == ["hers"]


async def test_trust_a_submitter_sees_and_cancels_his_own_jobs_alone(office: Office) -> None:
    for party, job in ((ANN, "hers"), (BOB, "his")):
        assert await office.ask(party, submission(job)) == JobAccepted(job=job)
    assert await office.jobs_of(ANN) == ["hers"]
    assert await office.jobs_of(BOB) == ["his"]
    for act in (JobQuery(job="his"), JobCancel(job="his")):
        answer = await office.ask(ANN, act)
        assert isinstance(answer, Rejected)
        assert "is not known to this hub" in answer.failure.detail
    canceled = await office.ask(BOB, JobCancel(job="his"))
    assert isinstance(canceled, JobStatus)


async def test_trust_an_operator_sees_and_cancels_everybodys_jobs(office: Office) -> None:
    for party, job in ((ANN, "hers"), (BOB, "his")):
        await office.ask(party, submission(job))
    assert await office.jobs_of(OLGA) == ["hers", "his"]
    await office.ask(OLGA, JobCancel(job="his"))
    answer = await office.ask(OLGA, JobQuery(job="his"))
    assert isinstance(answer, JobList)
    assert [status.state for status in answer.jobs] == [JobState.CANCELED]


async def test_trust_what_people_do_is_journalled_by_their_certificates(office: Office) -> None:
    await office.ask(ANN, submission("hers"))
    await office.ask(OLGA, JobCancel(job="hers"))
    submitted, canceled = office.journal
    assert isinstance(submitted, JobSubmitted)
    assert (submitted.by, submitted.role) == ("lab/client/ann", "submitter")
    assert isinstance(canceled, JobCanceled)
    assert (canceled.by, canceled.role) == ("lab/client/olga", "operator")


async def test_trust_operators_alone_drain_devices_and_do_it_once(office: Office) -> None:
    for party in (ANN, VIEWER):
        said = await office.deny(party, DeviceDrain(device="lab/box"))
        assert said.startswith("device.drain is for operators; lab/client/")
        await office.deny(party, DeviceUndrain(device="lab/box"))
    for _ in range(2):
        await office.ask(OLGA, DeviceDrain(device="box", reason="it is moved"))
    listed = await office.ask(OLGA, DeviceDrain(device="lab/box", reason="it is moved"))
    assert isinstance(listed, DeviceList)
    (report,) = listed.devices
    assert report.drained is not None
    assert (report.drained.by, report.drained.reason) == ("lab/client/olga", "it is moved")
    assert (report.health, report.identity) == ("maintenance", identity())
    for _ in range(2):
        await office.ask(OLGA, DeviceUndrain(device="box"))
    assert [type(event) for event in office.journal] == [DeviceDrained, DeviceUndrained]


async def test_trust_a_device_that_nobody_knows_is_not_drained(office: Office) -> None:
    for request in (DeviceDrain(device="nowhere"), DeviceUndrain(device="nowhere")):
        answer = await office.ask(OLGA, request)
        assert isinstance(answer, Rejected)
        assert answer.failure.kind is FailureKind.NO_MATCHING_DEVICE
        assert answer.failure.detail == "device 'nowhere' is not known; known are: lab/box"


async def test_trust_people_fetch_what_belongs_to_jobs_within_their_reach(office: Office) -> None:
    # Given a model and a bundle of Ann's job, and a blob that no job has to do with
    await office.ask(ANN, submission("hers"))
    bundle, kernel = office.base.blobs.put(b"bundle"), office.base.blobs.put(b"kernel")
    office.bundles[bundle] = (JobId("hers"),)
    model = carried(MODEL).digest
    got = {
        party.name: [await office.fetch(party, blob) for blob in (model, bundle, kernel)]
        for party in (ANN, BOB, OLGA, VIEWER)
    }
    # Then she gets those, an operator gets everything, and nobody else anything
    assert got == {"ann": [True, True, False], "bob": 3 * [False], "olga": 3 * [True], "vera": 3 * [False]}
    assert office.base.peer.refused == {"withheld": 7}
    # And a fetch is journalled once, however many pieces it has
    await office.fetch(ANN, bundle)
    fetched = [event for event in office.journal if isinstance(event, BlobFetched)]
    assert [(event.by, event.role, event.job) for event in fetched] == [
        ("lab/client/ann", "submitter", "hers"),
        ("lab/client/ann", "submitter", "hers"),
        ("lab/client/olga", "operator", "hers"),
        ("lab/client/olga", "operator", "hers"),
        ("lab/client/olga", "operator", ""),
    ]


async def test_trust_a_device_fetches_what_was_pushed_to_it(office: Office) -> None:
    kernel = office.base.blobs.put(b"kernel")
    assert not await office.fetch(BOX, kernel)
    office.pushed.add((DEVICE, kernel))
    assert await office.fetch(BOX, kernel)
    assert not await office.fetch(OTHER, kernel)
    assert office.journal == []
