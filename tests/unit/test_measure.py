"""Kernels go out within the credit, results are taken once, and what nobody asked for changes nothing."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fakes.shell import BOX, SITE, Shell, identity, shell
from resonator.bus import topics
from resonator.failures import Failure, FailureKind, Fault
from resonator.ids import CandidateId, DeviceId, JobId
from resonator.jobspec import JobBody, Metadata, ModelSpec, TargetSpec, TuningJob
from resonator.messages import MAX_INLINE, Ack, KernelPush, KernelResult
from resonator.tensors import TensorSpec
from resonator_hub.fleet import Acks, Links, Registry
from resonator_hub.jobs.store import Job, Jobs
from resonator_hub.measure import Measuring
from resonator_hub.measure.claims import Claims
from resonator_hub.measure.lane import Lane, Push
from resonator_hub.records import Catalog
from resonator_hub.scheduler.commands import Profile
from resonator_hub.scheduler.events import Measured

DEVICE, JOB = DeviceId(f"{SITE}/{BOX}"), JobId("j")
ARGUMENTS = (TensorSpec(name="a0", shape=(2,), dtype="float32"),)


@dataclass
class Bench:
    shell: Shell
    measuring: Measuring
    jobs: Jobs
    catalog: Catalog

    def profile(self, number: int, data: bytes = b"", *, epoch: int = 1, model: bool = False) -> Profile:
        blob = self.shell.blobs.put(data or f"kernel {number}".encode())
        self.catalog.keep_kernel("workload", "trace", "llvm", blob, ARGUMENTS)
        size = self.shell.blobs.read(blob, 0, 0)[1]
        name = CandidateId(f"{JOB}/t0/c{number}")
        return Profile(DEVICE, epoch, JOB, name, blob, size, race_s=0.5, model=model)

    def pushes(self) -> list[KernelPush]:
        found = (push.message for push in self.shell.broker.sent(KernelPush))
        return [push for push in found if isinstance(push, KernelPush)]

    def acked(self) -> list[str]:
        return [i for d in self.shell.broker.sent(Ack) for i in getattr(d.message, "ids", ())]

    async def result(self, number: int, *, message_id: str | None = None, **fields: object) -> str:
        body: dict[str, object] = {
            "job": JOB,
            "candidate": f"{JOB}/t0/c{number}",
            "epoch": 1,
            "latencies": (0.01,),
            "device_time": 0.01,
        }
        result = KernelResult.model_validate({**body, **fields})
        return await self.shell.device_says("result", result, message_id=message_id)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with shell(tmp_path) as base:
        acks, jobs, catalog = Acks(base.peer), Jobs(base.database), Catalog(base.database)
        body = JobBody(model=ModelSpec(onnx="m.onnx"), target=TargetSpec(kind="cpu"))
        with base.database.transaction() as connection:
            spec = TuningJob(metadata=Metadata(name="n"), spec=body)
            jobs.insert(connection, Job(JOB, spec, "0" * 64, SITE, "me"))
        registry = Registry(base.database)
        registry.keep(DEVICE, identity())
        links = Links(base.peer, base.inbox.now)
        parts = (base.peer, base.inbox, acks, base.blobs, catalog, jobs, registry, links)
        measuring = Measuring(*parts, repeat_s=0.02)
        yield Bench(base, measuring, jobs, catalog)
        await measuring.close()
        await acks.close(1.0)


def test_a_lane_never_exceeds_its_credit() -> None:
    lane = Lane(1, credit=10)
    for number, size in enumerate((6, 4, 1, 9)):
        name = CandidateId(f"c{number}")
        lane.add(Push(Profile(DEVICE, 1, JOB, name, "d", size), size, f"m{number}"))
    assert [push.message_id for push in lane.to_send()] == ["m0", "m1"]
    assert lane.to_send() == []
    lane.done(CandidateId("c0"))
    assert [push.message_id for push in lane.to_send()] == ["m2"]
    lane.done(CandidateId("c1"))
    assert [push.message_id for push in lane.to_send()] == ["m3"]
    assert [push.message_id for push in lane.outstanding] == ["m2", "m3"]
    assert "c3" in lane
    assert "c0" not in lane


async def test_a_small_kernel_rides_along(bench: Bench) -> None:
    bench.measuring.opened(DEVICE, 1, 1000)
    bench.measuring.push(bench.profile(0, b"x" * 500))
    await bench.shell.broker.wait_for(KernelPush)
    (push,) = bench.pushes()
    assert push.blob.data is not None
    assert zlib.decompress(push.blob.data) == b"x" * 500
    assert (push.blob.size, push.arguments, push.race_s, push.model) == (500, ARGUMENTS, 0.5, False)


async def test_a_large_kernel_is_only_announced(bench: Bench) -> None:
    bench.measuring.opened(DEVICE, 1, 10 * MAX_INLINE)
    bench.measuring.push(bench.profile(0, bytes(MAX_INLINE + 1)))
    await bench.shell.broker.wait_for(KernelPush)
    assert bench.pushes()[0].blob.data is None


async def test_a_model_comes_with_its_reference(bench: Bench) -> None:
    reference = bench.shell.blobs.put(b"reference")
    bench.jobs.set_reference(JOB, reference)
    bench.measuring.opened(DEVICE, 1, 1000)
    bench.measuring.push(bench.profile(0, b"bundle", model=True))
    await bench.shell.broker.wait_for(KernelPush)
    (push,) = bench.pushes()
    assert push.model
    assert push.reference is not None
    assert (push.reference.digest, push.arguments) == (reference, ())


async def test_results_make_room_for_more(bench: Bench) -> None:
    bench.measuring.opened(DEVICE, 1, 100)
    for number in range(3):
        bench.measuring.push(bench.profile(number, bytes(60)[:-1] + bytes([number])))
    await bench.shell.broker.wait_for(KernelPush)
    await bench.shell.settle()
    assert len(bench.pushes()) == 1
    await bench.result(0)
    assert [push.candidate for push in bench.pushes()] == ["j/t0/c0", "j/t0/c1"]


async def test_a_kernel_beyond_all_credit_is_returned_as_refused(bench: Bench) -> None:
    bench.measuring.opened(DEVICE, 1, 10)
    bench.measuring.push(bench.profile(0, bytes(11)))
    await bench.shell.settle()
    (event,) = bench.shell.events
    assert isinstance(event, Measured)
    assert event.failure is not None
    assert event.failure.kind is FailureKind.DEVICE_REFUSED
    assert "takes 11 bytes, the device holds 10" in event.failure.detail


async def test_a_kernel_whose_blob_is_lost_fails(bench: Bench) -> None:
    bench.measuring.opened(DEVICE, 1, 1000)
    command = bench.profile(0)
    bench.shell.blobs.delete(command.blob)
    bench.measuring.push(command)
    await bench.shell.settle()
    (event,) = bench.shell.events
    assert isinstance(event, Measured)
    assert event.failure is not None
    assert event.failure.kind is FailureKind.BUILD_ERROR


async def test_what_is_not_heard_of_is_pushed_again_with_the_same_id_and_without_bytes(bench: Bench) -> None:
    bench.measuring.opened(DEVICE, 1, 1000)
    bench.measuring.push(bench.profile(0))
    await bench.shell.broker.wait_for(KernelPush, 3)
    sent = bench.shell.broker.sent(KernelPush)
    assert len({push.id for push in sent}) == 1
    assert [push.blob.data is not None for push in bench.pushes()][:3] == [True, False, False]


async def test_a_kernel_for_a_window_that_is_over_is_not_pushed(bench: Bench) -> None:
    bench.measuring.push(bench.profile(0))
    bench.measuring.opened(DEVICE, 2, 1000)
    bench.measuring.push(bench.profile(0, epoch=1))
    bench.measuring.ended(DEVICE)
    bench.measuring.push(bench.profile(0, epoch=2))
    await bench.shell.settle()
    assert bench.pushes() == []


async def test_a_result_is_journalled_once_and_then_acknowledged(bench: Bench) -> None:
    bench.measuring.opened(DEVICE, 1, 1000)
    bench.measuring.push(bench.profile(0))
    bench.shell.hold.clear()
    sent = await bench.result(0, error=float("inf"), device_time=0.01)
    await bench.result(0, message_id=sent, error=float("inf"), device_time=0.01)
    assert bench.acked() == []
    bench.shell.hold.set()
    await bench.shell.broker.wait_for(Ack)
    (event,) = bench.shell.events
    assert isinstance(event, Measured)
    assert (event.latencies, event.device_time_s) == ((0.01,), 0.01)
    assert event.error is not None
    assert 1e300 < event.error < float("inf")
    assert set(bench.acked()) == {sent}
    await bench.result(0, message_id=sent, error=float("inf"), device_time=0.01)
    assert len(bench.shell.events) == 1
    assert bench.acked()[-1] == sent


async def test_a_device_that_claims_more_time_than_its_window_lasted_is_not_believed(bench: Bench) -> None:
    bench.measuring.opened(DEVICE, 1, 1000)
    bench.measuring.push(bench.profile(0))
    await bench.result(0, device_time=30.0, joules=5.0)
    (event,) = bench.shell.events
    assert isinstance(event, Measured)
    assert event.failure is not None
    assert event.failure.kind is FailureKind.IMPLAUSIBLE
    assert "device_time: 30 s" in event.failure.detail
    assert (event.latencies, event.device_time_s, event.joules) == ((), 0.0, None)


def test_claims_are_added_up_window_by_window() -> None:
    # Given a window that was opened at 100 s
    claims = Claims()
    claims.opened(DEVICE, 1, 100.0)
    # When two kernels are said to have taken 6 s each, by 110 s
    first = claims.objection(DEVICE, 1, 6.0, 110.0)
    second = claims.objection(DEVICE, 1, 6.0, 110.0)
    # Then the second cannot have; it can in the next window, or later, or where nothing is known
    assert first is None
    assert second == "device_time: 6 s on top of 6 s in a window that was opened 10 s ago"
    assert claims.objection(DEVICE, 1, 6.0, 112.0) is None
    claims.opened(DEVICE, 2, 112.0)
    assert claims.objection(DEVICE, 2, 6.0, 118.0) is None
    assert claims.objection(DEVICE, 7, 3000.0, 119.0) is None


def test_attack_by_endless_time_in_a_window_of_which_nothing_is_known() -> None:
    said = Claims().objection(DEVICE, 7, 1e308, 119.0)
    assert said == "device_time: 1e+308 s; at most 3600 s are accepted"


async def test_a_disturbed_kernel_may_be_measured_twice_in_one_window(bench: Bench) -> None:
    bench.measuring.opened(DEVICE, 1, 1000)
    bench.measuring.push(bench.profile(0))
    dirty = Failure(kind=FailureKind.DEVICE_DIRTY)
    await bench.result(0, latencies=(), failure=dirty)
    bench.measuring.push(bench.profile(0))
    await bench.result(0)
    failures = [event.failure for event in bench.shell.events if isinstance(event, Measured)]
    assert failures == [dirty, None]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"candidate": "j/t0/c9"}, "of a kernel not given"),
        ({"job": "other"}, "of no job here"),
        ({"epoch": 2}, "of another window"),
    ],
)
async def test_an_attack_by_a_result_nobody_asked_for_changes_nothing(
    bench: Bench, fields: dict[str, object], why: str
) -> None:
    bench.measuring.opened(DEVICE, 1, 1000)
    bench.measuring.push(bench.profile(0))
    sent = await bench.result(0, **fields)
    assert bench.shell.events == []
    assert bench.shell.peer.refused == {why: 1}
    assert bench.acked() == [sent]


async def test_an_attack_by_measuring_again_changes_nothing(bench: Bench) -> None:
    bench.measuring.opened(DEVICE, 1, 1000)
    bench.measuring.push(bench.profile(0))
    await bench.result(0)
    await bench.result(0, latencies=(0.001,))
    assert [event.latencies for event in bench.shell.events if isinstance(event, Measured)] == [(0.01,)]
    assert bench.shell.peer.refused == {"measured before": 1}


async def test_an_attack_by_a_result_that_cannot_be_true_is_a_failure_of_the_device(bench: Bench) -> None:
    bench.measuring.opened(DEVICE, 1, 1000)
    bench.measuring.push(replace(bench.profile(0), flops=1e9))
    await bench.result(0, latencies=(1e-9,))
    (event,) = bench.shell.events
    assert isinstance(event, Measured)
    assert event.failure is not None
    assert event.failure.kind is FailureKind.IMPLAUSIBLE
    assert event.failure.kind.fault is Fault.DEVICE
    assert "1e+09 operations" in event.failure.detail
    assert (event.latencies, event.device_time_s) == ((), 0.0)
    assert bench.shell.peer.refused == {"implausible": 1}


async def test_trust_a_device_is_given_what_was_pushed_to_it_and_nothing_else(bench: Bench) -> None:
    command = bench.profile(0)
    assert not bench.measuring.pushed(DEVICE, command.blob)
    bench.measuring.opened(DEVICE, 1, 1000)
    bench.measuring.push(command)
    assert bench.measuring.pushed(DEVICE, command.blob)
    assert not bench.measuring.pushed(DeviceId("local/other"), command.blob)
    assert not bench.measuring.pushed(DEVICE, bench.profile(1).blob)
    bench.measuring.ended(DEVICE)  # what is on its way may still come
    assert bench.measuring.pushed(DEVICE, command.blob)
    bench.measuring.opened(DEVICE, 2, 1000)
    assert not bench.measuring.pushed(DEVICE, command.blob)


async def test_a_result_from_another_device_changes_nothing(bench: Bench) -> None:
    bench.measuring.opened(DEVICE, 1, 1000)
    bench.measuring.push(bench.profile(0))
    result = KernelResult(job=JOB, candidate="j/t0/c0", epoch=1, latencies=(0.1,))
    await bench.shell.hear(topics.device_up(SITE, "other", "result"), result)
    assert bench.shell.events == []
    assert bench.shell.peer.refused == {"of a kernel not given": 1}


async def test_a_result_that_says_nothing_or_too_much_is_refused(bench: Bench) -> None:
    bench.measuring.opened(DEVICE, 1, 1000)
    bench.measuring.push(bench.profile(0))
    await bench.result(0, latencies=())
    await bench.result(0, failure=Failure(kind=FailureKind.KERNEL_CRASH))
    assert bench.shell.events == []
    assert bench.shell.peer.refused["invalid"] == 2


async def test_a_failure_that_no_device_can_judge_counts_as_the_devices(bench: Bench) -> None:
    bench.measuring.opened(DEVICE, 1, 1000)
    bench.measuring.push(bench.profile(0))
    await bench.result(0, latencies=(), failure=Failure(kind=FailureKind.JOB_INVALID, detail="ha"))
    (event,) = bench.shell.events
    assert isinstance(event, Measured)
    assert event.failure == Failure(kind=FailureKind.DEVICE_REFUSED, detail="JOB_INVALID: ha")


async def test_what_an_earlier_life_asked_for_is_expected_until_the_job_ends(bench: Bench) -> None:
    bench.measuring.remember(bench.profile(0))
    bench.measuring.remember(bench.profile(1))
    await bench.result(0)
    assert len(bench.shell.events) == 1
    bench.measuring.forget(JOB)
    await bench.result(1)
    assert len(bench.shell.events) == 1
    assert bench.shell.peer.refused == {"of no job here": 1}
