"""The compute pool: a bad call costs itself and nothing else."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import pytest_asyncio

import compute_calls as calls
from resonator_hub.compute import Compute, ComputeFailed, WarmPool
from resonator_hub.frontends import ModelInvalid
from resonator_hub.meter import metered

TIMEOUT_S = 60.0
PACKAGES = ("resonator_hub", "compute_calls")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def compute() -> AsyncIterator[Compute]:
    first_core = min(os.sched_getaffinity(0))
    pool = WarmPool(2, cores=[first_core], packages=PACKAGES, programs=[Path(sys.executable)])
    compute = Compute(pool, slots=2)
    await compute.start()
    yield compute
    await compute.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def single() -> AsyncIterator[Compute]:
    compute = Compute(WarmPool(1, packages=PACKAGES), slots=1)
    await compute.start()
    yield compute
    await compute.close()


async def started(compute: Compute) -> tuple[int, asyncio.Future[None]]:
    """Have a call under way that never ends; return its process."""
    fifo = Path(await compute.run(calls.folder, timeout_s=TIMEOUT_S), "started")
    os.mkfifo(fifo)
    call = asyncio.ensure_future(compute.run(calls.announce, timeout_s=TIMEOUT_S))
    return int(await asyncio.wait_for(asyncio.to_thread(fifo.read_text), TIMEOUT_S)), call


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_call_returns_its_result_from_another_process(compute: Compute) -> None:
    assert await compute.run(calls.add, 2, 3, timeout_s=TIMEOUT_S) == 5
    assert await compute.run(calls.process_id, timeout_s=TIMEOUT_S) != os.getpid()


async def test_workers_find_tvm_loaded_and_are_pinned_and_deaf_to_ctrl_c(compute: Compute) -> None:
    assert await compute.run(calls.loaded_modules, timeout_s=TIMEOUT_S) == (True, True)
    assert await compute.run(calls.cores_allowed, timeout_s=TIMEOUT_S) == {min(os.sched_getaffinity(0))}
    assert await compute.run(calls.ignores_interrupts, timeout_s=TIMEOUT_S)


async def test_what_only_gpus_need_is_loaded_for_the_first_target_of_that_kind(compute: Compute) -> None:
    assert await compute.run(calls.gpu_intrinsics_by_target, timeout_s=TIMEOUT_S) == (False, True)


async def test_calls_made_before_the_pool_is_ready_wait_for_it() -> None:
    compute = Compute(ThreadPoolExecutor(1), slots=1)
    early = asyncio.ensure_future(compute.run(calls.add, 3, 4, timeout_s=TIMEOUT_S))
    await asyncio.sleep(0)
    assert not early.done()

    await compute.start()

    assert await early == 7
    await compute.close()


async def test_what_the_function_raises_is_raised_to_the_caller(compute: Compute) -> None:
    with pytest.raises(ModelInvalid, match=r"^No\.$"):
        await compute.run(calls.refuse, timeout_s=TIMEOUT_S)


async def test_errors_of_tvm_arrive_as_text_so_that_the_hub_never_loads_tvm(compute: Compute) -> None:
    with pytest.raises(RuntimeError, match="OpNotImplemented: no such operator"):
        await compute.run(calls.fail_inside_tvm, timeout_s=TIMEOUT_S)


async def test_a_crash_costs_only_its_call(compute: Compute) -> None:
    other = asyncio.ensure_future(compute.run(calls.add, 1, 1, timeout_s=TIMEOUT_S))
    with pytest.raises(ComputeFailed, match="crash did not finish"):
        await compute.run(calls.crash, timeout_s=TIMEOUT_S)
    assert await other == 2
    assert await compute.run(calls.add, 1, 2, timeout_s=TIMEOUT_S) == 3


async def test_a_call_whose_worker_is_killed_is_run_by_another(single: Compute) -> None:
    first = await single.run(calls.folder, timeout_s=TIMEOUT_S)
    assert await single.run(calls.die_in, first, timeout_s=TIMEOUT_S) != first


async def test_a_nursery_that_is_killed_is_replaced(single: Compute) -> None:
    nursery = await single.run(calls.parent, timeout_s=TIMEOUT_S)
    os.kill(nursery, signal.SIGKILL)
    while await single.run(calls.parent, timeout_s=TIMEOUT_S) == nursery:
        pass  # its last worker has not heard of it yet
    assert await single.run(calls.add, 1, 2, timeout_s=TIMEOUT_S) == 3


async def test_a_spinning_call_is_ended_at_its_timeout_and_its_slot_works_again(compute: Compute) -> None:
    spinning = [compute.run(calls.spin, timeout_s=0.2) for _ in range(compute.slots)]
    outcomes = await asyncio.gather(*spinning, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ComputeFailed] * compute.slots
    assert "spin did not finish within 0.2 s" in str(outcomes[0])
    assert await compute.run(calls.add, 2, 2, timeout_s=TIMEOUT_S) == 4


async def test_a_call_that_wants_too_much_memory_fails_alone(compute: Compute) -> None:
    with pytest.raises(ComputeFailed, match="memory"):
        await compute.run(calls.hoard, timeout_s=TIMEOUT_S)
    assert await compute.run(calls.add, 3, 3, timeout_s=TIMEOUT_S) == 6


async def test_a_cancelled_call_gives_its_slot_back(single: Compute) -> None:
    pid, call = await started(single)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await asyncio.to_thread(_ends, pid)
    assert await single.run(calls.add, 4, 4, timeout_s=TIMEOUT_S) == 8


async def test_any_executor_will_do() -> None:
    compute = Compute(ThreadPoolExecutor(1), slots=1)
    await compute.start()
    assert await compute.run(calls.add, 5, 5, timeout_s=TIMEOUT_S) == 10
    await compute.close()


async def test_workers_die_with_the_hub_however_it_dies() -> None:
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "import compute_calls as calls\n"
        "from resonator_hub.pool import WarmPool\n"
        "pool = WarmPool(1, packages=['compute_calls']); pool.wait_until_warm()\n"
        "fifo = pool.submit(calls.folder).result() + '/started'; os.mkfifo(fifo); print(fifo, flush=True)\n"
        "pool.submit(calls.announce).result()\n"
    )
    command = [sys.executable, "-c", script, os.path.dirname(calls.__file__)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as hub:
        assert hub.stdout is not None
        fifo = Path(await asyncio.to_thread(hub.stdout.readline))
        pid = int(await asyncio.to_thread(Path(str(fifo).strip()).read_text))
        hub.kill()
    assert await asyncio.to_thread(_ends, pid)


def _ends(pid: int) -> bool:
    """Block until a process that is not our child has ended; return whether it did in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(descriptor):
        readable, _, _ = select.select([descriptor], [], [], TIMEOUT_S)
        return bool(readable)


async def test_a_step_is_charged_with_what_its_calls_and_their_children_take(compute: Compute) -> None:
    with metered() as meter:
        await compute.run(calls.burn, 0.1, timeout_s=TIMEOUT_S)
        with pytest.raises(ModelInvalid):
            await compute.run(calls.burn_in_vain, 0.1, timeout_s=TIMEOUT_S)
    assert 0.4 <= meter.cpu_s < 2.0


async def test_steps_side_by_side_are_charged_apart(compute: Compute) -> None:
    async def step(seconds: float) -> float:
        with metered() as meter:
            await compute.run(calls.burn, seconds, timeout_s=TIMEOUT_S)
        return meter.cpu_s

    little, much = await asyncio.gather(step(0.01), step(0.4))
    assert little < 0.8 <= much


async def test_a_call_that_was_killed_is_charged_by_the_clock(compute: Compute) -> None:
    with metered() as meter, pytest.raises(ComputeFailed):
        await compute.run(calls.spin, timeout_s=0.2)
    assert 0.2 <= meter.cpu_s < 10.0
