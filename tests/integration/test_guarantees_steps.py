"""The hub dies before and after each kind of event is written down; its next life goes on (on fakes)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fakes.guarantees import Evidence, lost_jobs, miscounted, read_books
from fakes.house import JOB, House
from resonator import bundle
from resonator.messages import JobState
from resonator_hub.database import Database
from resonator_hub.journal import Journal
from resonator_hub.scheduler import events

TRIALS = 8
KINDS = (
    events.DeviceSeen,
    events.JobSubmitted,
    events.TasksExtracted,
    events.CandidatesSelected,
    events.KernelBuilt,
    events.WindowOpened,
    events.Measured,
    events.WindowClosed,
    events.ModelUpdated,
    events.ModelCompiled,
    events.BundleDelivered,
)


class Death(Exception):
    """What kill -9 is to a process."""


class Fate:
    """Has the journal raise Death at the first event of a kind, before it is on disk or after."""

    def __init__(self, kind: type[events.Event], when: str) -> None:
        self.met = asyncio.Event()
        self._kind, self._when, self._append = kind, when, Journal.append_all

    def append(self, journal: Journal, entries: Sequence[tuple[events.Event, Any]]) -> int:
        here = not self.met.is_set() and any(isinstance(event, self._kind) for event, _ in entries)
        if here and self._when == "before":
            self.met.set()
            raise Death
        seq = self._append(journal, entries)
        if here:
            self.met.set()
            raise Death
        return seq


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    listening = await made.device.start()
    yield made
    listening.cancel()
    await asyncio.wait({listening})


async def dies(house: House, fate: Fate) -> None:
    """Run a hub and submit a job until the hub has died."""
    hub = house.hub()
    await hub.__aenter__()
    await house.submit(TRIALS)
    await asyncio.wait_for(fate.met.wait(), 20.0)
    with pytest.raises(Death):
        await hub.__aexit__(None, None, None)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_a_hub_that_dies_there_goes_on_where_it_was(
    house: House, monkeypatch: pytest.MonkeyPatch, kind: type[events.Event], when: str
) -> None:
    fate = Fate(kind, when)
    monkeypatch.setattr(Journal, "append_all", lambda *given: fate.append(*given))
    # Given a hub that dies at a step of a job
    await dies(house, fate)
    # When it is started again, and the client, who may not have heard, asks once more
    async with house.hub():
        await house.submit(TRIALS)
        status = await house.ended()
    # Then the job succeeds, every trial counts once, and the bundle is there
    assert (status.state, status.trials) == (JobState.SUCCEEDED, TRIALS), status.failure
    assert status.bundle is not None
    assert bundle.read(house.blobs.get(status.bundle.digest))[0].job == JOB
    database = Database.read(house.folder)
    books = read_books(database)
    database.close()
    assert lost_jobs(Evidence([JOB], books, []), at_rest=True) == []
    assert miscounted(books) == []
