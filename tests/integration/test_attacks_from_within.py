"""Attacks by those who belong: a box that lies about its results, users who want more than is theirs.

Over a real Mosquitto, with certificates, against a whole hub.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.scene import ANN, BOB, JOB, VERA, Scene, staged
from fakes.shell import BOX, SITE
from fakes.speakers import PATIENCE_S
from resonator.client import Client
from resonator.errors import Refused, ResonatorError
from resonator.failures import FailureKind
from resonator.messages import DeviceReport, JobState, KernelResult
from resonator.trust import Party
from resonator_hub import audit
from resonator_hub.database import Database
from resonator_hub.journal import Journal
from resonator_hub.scheduler.events import Measured

OLGA = Party("operator", SITE, "olga")
DEVICE = f"{SITE}/{BOX}"


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with staged(tmp_path, captured=False) as scene:
        scene.fleet.enrol(OLGA)
        await scene.until_known(DEVICE)
        yield scene


def client(scene: Scene, party: Party) -> Client:
    return Client.connect(scene.url, SITE, timeout=PATIENCE_S, identity=scene.fleet.place(party))


async def shown(scene: Scene) -> DeviceReport:
    async with client(scene, VERA) as vera:
        return await vera.device(DEVICE)


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        pytest.param({"device_time": 600.0}, "device_time: 600 s", id="ten minutes in a second"),
        pytest.param({"latencies": (1.0, 1.0)}, "latencies: 2 s in all", id="two seconds in a millisecond"),
        pytest.param({"latencies": (1e-9,) * 61}, "latencies: 61 of them", id="more than asked for"),
    ],
)
async def test_attack_by_a_device_that_lies_about_results_which_nobody_believes(
    scene: Scene, tmp_path: Path, lie: dict[str, object], told: str
) -> None:
    # Given a box whose first result cannot be true
    lied: list[KernelResult] = []

    def says(result: KernelResult) -> KernelResult:
        if not lied:
            lied.append(result)
            return result.model_copy(update=lie)
        return result

    scene.device.says = says
    # When a job is tuned on it
    await scene.submit()
    await scene.succeeds()
    # Then the lie is a failure of the box's, its kernel was measured again, and it was seen at rest for that
    assert scene.refused == {"implausible": 1}
    database = Database.read(tmp_path / "hub.db")
    measured = [event for event in Journal(database).events((Measured,)) if isinstance(event, Measured)]
    database.close()
    failures = [event.failure for event in measured if event.failure is not None]
    assert [failure.kind for failure in failures] == [FailureKind.IMPLAUSIBLE]
    assert failures[0].detail.startswith(told)
    assert [event.latencies != () for event in measured if event.candidate == lied[0].candidate] == [
        False,
        True,
    ]


async def test_trust_operators_drain_devices_over_mtls_and_the_journal_tells(
    scene: Scene, tmp_path: Path
) -> None:
    # Given a device that others than operators cannot drain, and one does
    for party in (ANN, VERA):
        async with client(scene, party) as user:
            with pytest.raises(Refused, match=r"device\.drain is for operators"):
                await user.drain(BOX)
    async with client(scene, OLGA) as olga:
        drained = (await olga.drain(BOX, "it is moved")).drained
        assert drained is not None
        assert (drained.by, drained.role) == ("local/client/olga", "operator")
        # When a job is submitted, then it waits, and says for what
        await scene.submit()
        status = await olga.job(JOB)
        assert status.state is JobState.QUEUED
        assert status.waiting_for.endswith(f"{DEVICE} is drained by local/client/olga: it is moved")
        assert (await shown(scene)).health == "maintenance"
        await olga.undrain(BOX)
    await scene.succeeds()
    assert [(entry.by, entry.deed) for entry in audit.entries(tmp_path)] == [
        ("local/client/olga", "drained"),
        ("local/client/ann", "submitted"),
        ("local/client/olga", "undrained"),
    ]


async def test_attack_users_fetch_nothing_of_others(scene: Scene, tmp_path: Path) -> None:
    await scene.submit()
    await scene.succeeds()
    async with client(scene, OLGA) as olga:
        bundle = (await olga.job(JOB)).bundle
        assert bundle is not None
    for number, party in enumerate((BOB, VERA)):
        async with client(scene, party) as thief:
            with pytest.raises(ResonatorError):
                await asyncio.wait_for(thief._blobs.pull(bundle, tmp_path / f"{number}"), PATIENCE_S)
        assert not (tmp_path / f"{number}").exists()
    async with client(scene, ANN) as ann:
        await ann.fetch(JOB, tmp_path / "hers")
    assert (tmp_path / "hers").stat().st_size == bundle.size
    fetched = [entry for entry in audit.entries(tmp_path) if entry.deed == "fetched"]
    assert [(entry.by, entry.role, entry.what) for entry in fetched] == [
        ("local/client/ann", "submitter", JOB)
    ]
