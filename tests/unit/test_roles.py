"""Trust in people: what each role may ask of a hub, by the certificate that a request is signed with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.fleet_authority import ANN, BOB, HUB, OLGA, VIEWER, Fleet
from fakes.shell import Shell, shell
from resonator.bus import topics
from resonator.failures import FailureKind
from resonator.messages import (
    BenchRequest,
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
from resonator.trust import Credentials, Party
from resonator.trust.seal import Seal
from resonator_hub.fleet import Registry
from resonator_hub.jobs.requests import Desk, Requests
from resonator_hub.jobs.serving import Serving
from resonator_hub.jobs.store import Jobs
from resonator_hub.jobs.submissions import Submissions
from resonator_hub.scheduler import Scheduler
from resonator_hub.scheduler.events import HubStarted
from unit.test_requests import MODEL, carried, check_model, spec


class Office:
    """A hub's desk that hears only what is signed."""

    def __init__(self, base: Shell, scheduler: Scheduler, fleet: Fleet) -> None:
        self.base, self._scheduler, self._fleet = base, scheduler, fleet

    async def ask(self, party: Party, message: Message) -> Message:
        """Ask as somebody, and return the answer."""
        seal = Seal(Credentials.load(self._fleet.place(party)))
        topic = topics.client_up(party.site, party.name)
        sent = await self.base.hear(topic, message, source=party.name, seal=seal)
        _, answer = await self.base.broker.answer_to(sent)
        while self.base.events:
            self._scheduler.step(self.base.events.pop(0))
        return answer

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
        desk, serving = Desk(base.peer), Serving(base.peer, base.blobs)
        Requests(desk, base.inbox, scheduler, Registry(base.database), jobs)
        submissions = Submissions(desk, base.inbox, scheduler, jobs, base.blobs, serving, check_model)
        yield Office(base, scheduler, fleet)
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
        answer = await office.ask(VIEWER, act)
        assert isinstance(answer, Rejected)
        assert answer.failure.kind is FailureKind.FORBIDDEN
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
