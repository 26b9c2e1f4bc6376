"""The profiler with its real process and real kernels, good and bad."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakes.kernels import ELEMENTS, build_add_one, build_c, build_doubler, push
from resonator.failures import FailureKind
from resonator.jobspec import Measure
from resonator.messages import KernelPush
from resonator_agent.events import Outcome
from resonator_agent.profiler import Profiler, Run
from resonator_agent.worker_process import Limits

QUICK = Measure(number=2, repeat=3, min_repeat_ms=5, timeout_s=10.0)
HURRIED = Measure(number=1, repeat=1, min_repeat_ms=0, timeout_s=0.5)
MEMORY = 2**30
"""More than the tests themselves ever hold: of a child that stays below that, the peak is not known."""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("kernels")
    built: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in built:
            builders = {"add": build_add_one, "doubler": build_doubler}
            data = builders[name](folder) if name in builders else build_c(name, folder)
            built[name] = folder / f"{name}.blob"
            built[name].write_bytes(data)
        return built[name]

    return get


@pytest.fixture
async def profiler(tmp_path: Path) -> AsyncIterator[Profiler]:
    made = Profiler(Limits(cores=(0,), memory=MEMORY, max_foreign_load=1.0), tmp_path)
    await made.start()
    yield made
    await made.close()


def prepared(path: Path, measure: Measure = QUICK, **changes: object) -> Run:
    order: KernelPush = push(path.stem, path.read_bytes()).model_copy(update=changes)
    return Run(order, measure, path)


async def measured(profiler: Profiler, run: Run) -> Outcome:
    outcome = await profiler.run(run)
    assert outcome is not None
    return outcome


async def test_a_kernel_is_timed_until_its_median_is_known(
    profiler: Profiler, library: Callable[[str], Path]
) -> None:
    outcome = await measured(profiler, prepared(library("add")))

    assert outcome.failure is None
    assert 6 <= len(outcome.latencies) <= 15
    assert all(0 < latency < 1e-3 for latency in outcome.latencies)
    assert not outcome.raced
    assert outcome.device_time > 0.006


async def test_a_kernel_rests_between_the_repeats_of_its_protocol(
    profiler: Profiler, library: Callable[[str], Path]
) -> None:
    measure = QUICK.model_copy(update={"cooldown_ms": 50})

    outcome = await measured(profiler, prepared(library("add"), measure))

    assert len(outcome.latencies) == 3
    assert outcome.device_time > 0.1


async def test_a_slow_kernel_gets_one_short_look_only(
    profiler: Profiler, library: Callable[[str], Path]
) -> None:
    outcome = await measured(profiler, prepared(library("slow"), race_s=0.02))

    assert outcome.raced
    assert len(outcome.latencies) == 1
    assert 0.03 <= outcome.latencies[0] < 3


async def test_a_kernel_within_the_race_limit_is_timed_in_full(
    profiler: Profiler, library: Callable[[str], Path]
) -> None:
    outcome = await measured(profiler, prepared(library("slow"), race_s=1.0))

    assert not outcome.raced
    assert len(outcome.latencies) == 6


@pytest.mark.parametrize(
    ("name", "kind", "word"),
    [
        ("crash", FailureKind.KERNEL_CRASH, "SIGSEGV"),
        ("exit", FailureKind.KERNEL_CRASH, "exited with 7"),
        ("endless", FailureKind.KERNEL_TIMEOUT, "0.5 s"),
        ("hog", FailureKind.KERNEL_MEMORY, "1024 MiB"),
    ],
)
async def test_a_bad_kernel_costs_itself_only(
    profiler: Profiler, library: Callable[[str], Path], name: str, kind: FailureKind, word: str
) -> None:
    measure = HURRIED if name == "endless" else QUICK
    bad = await measured(profiler, prepared(library(name), measure))
    good = await measured(profiler, prepared(library("add")))

    assert bad.failure is not None
    assert bad.failure.kind is kind
    assert word in bad.failure.detail
    assert bad.latencies == ()
    assert good.failure is None


async def test_a_kernel_that_does_not_load_is_a_build_error(profiler: Profiler, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"no shared library")

    outcome = await measured(profiler, prepared(tmp_path / "text"))

    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.BUILD_ERROR


async def test_arguments_beyond_the_memory_limit_are_a_memory_failure(
    profiler: Profiler, library: Callable[[str], Path]
) -> None:
    path = library("add")
    huge = push("huge", path.read_bytes()).arguments[0].model_copy(update={"shape": (2**31,)})

    outcome = await measured(profiler, prepared(path, arguments=(huge, huge)))

    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.KERNEL_MEMORY


@pytest.mark.parametrize(("factor", "accepted"), [(2.0, True), (2.1, False)])
async def test_a_model_is_timed_and_compared_with_its_reference(
    profiler: Profiler, library: Callable[[str], Path], tmp_path: Path, factor: float, accepted: bool
) -> None:
    inputs = np.linspace(0.0, 1.0, ELEMENTS, dtype=np.float32)
    np.savez(tmp_path / "reference.npz", **{"in:x": inputs, "out:y": np.float32(factor) * inputs})
    run = replace(prepared(library("doubler"), model=True), reference=tmp_path / "reference.npz")

    outcome = await measured(profiler, run)

    assert outcome.failure is None
    assert len(outcome.latencies) == 3
    assert outcome.error is not None
    assert (outcome.error < 1e-6) is accepted


async def test_a_model_without_a_reference_is_timed_all_the_same(
    profiler: Profiler, library: Callable[[str], Path]
) -> None:
    outcome = await measured(profiler, prepared(library("doubler"), model=True))

    assert len(outcome.latencies) == 3
    assert outcome.error is None


async def test_a_model_that_is_no_bundle_is_a_build_error(profiler: Profiler, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"no bundle")

    outcome = await measured(profiler, prepared(tmp_path / "text", model=True))

    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.BUILD_ERROR


async def test_a_stopped_kernel_has_no_outcome(profiler: Profiler, library: Callable[[str], Path]) -> None:
    running = asyncio.ensure_future(profiler.run(prepared(library("endless"))))
    await asyncio.sleep(0)
    profiler.stop()

    assert await asyncio.wait_for(running, 5) is None
    assert (await measured(profiler, prepared(library("add")))).failure is None


async def test_the_sandbox_of_one_job_is_not_that_of_another(
    profiler: Profiler, library: Callable[[str], Path]
) -> None:
    """What a kernel leaves behind in its process could tell of other kernels what it likes."""
    processes = []
    for job in ("one", "one", "other"):
        outcome = await measured(profiler, prepared(library("add"), job=job))
        assert outcome.failure is None
        processes.append(profiler.pids()[-1])

    assert processes[0] == processes[1] != processes[2]


async def test_a_disturbed_measurement_is_dirty(tmp_path: Path, library: Callable[[str], Path]) -> None:
    limits = Limits(cores=(0,), memory=MEMORY, max_foreign_load=0.25)
    profiler = Profiler(limits, tmp_path)
    await profiler.start()
    intruder = Profiler(limits, tmp_path)
    await intruder.start()
    intruding = asyncio.ensure_future(intruder.run(prepared(library("endless"))))

    long_enough = Measure(number=1, repeat=5, min_repeat_ms=300, timeout_s=10.0)
    outcome = await measured(profiler, prepared(library("add"), long_enough))
    intruder.stop()
    await intruding
    await intruder.close()
    await profiler.close()

    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.DEVICE_DIRTY
    assert outcome.conditions.foreign_load is not None
    assert outcome.conditions.foreign_load > 0.25


async def test_the_process_is_pinned_and_light(profiler: Profiler) -> None:
    _, pid = profiler.pids()
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)

    assert fields["Cpus_allowed_list"] == "0"
    assert int(fields["VmRSS"].removesuffix(" kB")) < 110 * 1024


def test_what_a_worker_inherits_is_the_peak_of_its_parent_though_that_holds_less_by_now() -> None:
    held = 200 * 2**20
    told = f"a = bytearray(b'x') * {held}; del a\n"
    told += "from resonator_agent import worker_process; print(worker_process._peak())"
    done = subprocess.run([sys.executable, "-c", told], stdout=subprocess.PIPE, check=True)
    assert int(done.stdout) > held
