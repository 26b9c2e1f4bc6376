"""What a model can do to the process that reads, searches or builds it: fail its own call alone."""

from __future__ import annotations

import asyncio
import os
import select
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

import compute_calls as calls
from resonator.sandbox import LANDLOCK, SECCOMP
from resonator_hub.compute import Compute, ComputeFailed, WarmPool
from resonator_hub.frontends import ModelInvalid
from resonator_hub.frontends.onnx import check
from small_models import residual_net

TIMEOUT_S = 60.0
PACKAGES = ("resonator_hub", "compute_calls")
LOAD = "resonator_hub.warm:load_onnx"
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[WarmPool]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESONATOR_HUB_DATABASE", "postgresql://hub:secret@db/resonator")
        made = WarmPool(1, packages=PACKAGES, load=LOAD, memory_bytes=2**30, cpu_s=2.0)
    yield made
    await asyncio.to_thread(made.shutdown, cancel_futures=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def compute(pool: WarmPool) -> AsyncIterator[Compute]:
    ready = Compute(pool, 1)
    await ready.start()
    yield ready


async def works(compute: Compute) -> bool:
    return await compute.run(calls.add, 1, 1, timeout_s=TIMEOUT_S) == 2


async def test_sandbox_attack_by_a_model_that_wants_more_than_to_be_compiled(
    compute: Compute, tmp_path: Path
) -> None:
    layers = await compute.run(calls.layers, timeout_s=TIMEOUT_S)
    if set(layers) != {LANDLOCK, SECCOMP}:
        pytest.skip(f"this machine has only {layers}")
    secret = tmp_path / "own.key"
    secret.write_text("secret")
    found = await compute.run(calls.attempts, str(secret), str(tmp_path), os.getpid(), timeout_s=TIMEOUT_S)
    allowed = {"write to its folder", "make a folder in it", "start a linker"}
    assert {what for what, outcome in found.items() if outcome == "done"} == allowed
    assert set(tmp_path.iterdir()) == {secret}
    assert await works(compute)


async def test_sandbox_does_not_know_the_hubs_environment(compute: Compute) -> None:
    variables = await compute.run(calls.variables, timeout_s=TIMEOUT_S)
    assert "PATH" in variables
    assert not [name for name in variables if name.startswith("RESONATOR")]


@pytest.mark.parametrize(
    ("attack", "says"),
    [
        (calls.crash, "crash did not finish: its process was killed, crashed or ran out of memory"),
        (calls.hoard, "hoard did not finish: it ran out of memory, the 1 GiB that a worker may use"),
    ],
)
async def test_attack_by_a_model_that_crashes_or_eats_memory_costs_its_own_call(
    attack: object, says: str, compute: Compute
) -> None:
    with pytest.raises(ComputeFailed, match=says):
        await compute.run(attack, timeout_s=TIMEOUT_S)  # type: ignore[arg-type]
    assert await works(compute)


async def test_attack_on_memory_that_counts_as_nobodys_is_refused(compute: Compute) -> None:
    with pytest.raises(RuntimeError, match="Operation not permitted"):
        await compute.run(calls.share, timeout_s=TIMEOUT_S)
    assert await works(compute)


async def test_attack_by_a_model_that_spins_is_ended_by_the_hub(compute: Compute) -> None:
    with pytest.raises(ComputeFailed, match=r"spin did not finish within 0\.2 s"):
        await compute.run(calls.spin, timeout_s=0.2)
    assert await works(compute)


async def test_attack_by_a_model_that_spins_is_ended_by_the_kernel_if_the_hub_does_not(
    compute: Compute,
) -> None:
    with pytest.raises(ComputeFailed, match="its process was killed"):
        await compute.run(calls.spin, timeout_s=TIMEOUT_S)
    assert await works(compute)


async def test_attack_on_the_disk_is_bounded(compute: Compute) -> None:
    with pytest.raises(RuntimeError, match="File too large"):
        await compute.run(calls.fill_disk, timeout_s=TIMEOUT_S)
    assert await works(compute)


async def test_attack_by_a_program_that_is_left_behind_ends_with_its_worker() -> None:
    pool = WarmPool(1, packages=PACKAGES, load=LOAD, programs=[Path(sys.executable)])
    compute = Compute(pool, 1)
    await compute.start()
    try:
        folder = Path(await compute.run(calls.folder, timeout_s=TIMEOUT_S))
        for fifo in ("started", "go"):
            os.mkfifo(folder / fifo)
        call = asyncio.ensure_future(compute.run(calls.leave_behind, timeout_s=TIMEOUT_S))
        left = os.pidfd_open(int(await asyncio.to_thread((folder / "started").read_text)))
        await asyncio.to_thread((folder / "go").write_text, "go")
        with pytest.raises(
            RuntimeError, match="FileNotFoundError"
        ):  # of the next worker: it has no such pipe
            await call
        with os.fdopen(left):
            assert (await asyncio.to_thread(select.select, [left], [], [], TIMEOUT_S))[0] == [left]
    finally:
        await compute.close()
    assert not folder.exists()


@pytest.mark.parametrize(
    "said",
    [
        struct.pack("!IQ", 0, 2**62),
        struct.pack("!IQ", 2**32 - 1, 1),
        struct.pack("!IQ", 0, 4) + b"\xc1\xc1\xc1\xc1",
        struct.pack("!IQ", 0, 5) + b"\x93\x00\xc0\xa1x",
        struct.pack("!IQ", 0, 7) + b"\x93\x00\xa3Foo\x00",
    ],
    ids=["huge", "pieces", "no msgpack", "another type", "unknown error"],
)
async def test_attack_by_a_worker_that_was_taken_over_and_lies(said: bytes, compute: Compute) -> None:
    with pytest.raises(ComputeFailed, match=r"is too large|pieces|not msgpack|something else"):
        await compute.run(calls.scribble, said, timeout_s=TIMEOUT_S)
    assert await works(compute)


async def test_attack_by_calls_that_are_no_stages(pool: WarmPool, compute: Compute) -> None:
    for function in (os.system, lambda: 0, eval, WarmPool):
        with pytest.raises(TypeError, match="cannot run in another process"):
            pool.submit(function, "true")
    with pytest.raises(RuntimeError, match="is not a stage"):
        await compute.run(no_stage, timeout_s=TIMEOUT_S)


def no_stage() -> int:
    return 0


async def test_attack_on_the_next_model_is_none_where_each_has_a_process_of_its_own(compute: Compute) -> None:
    before = await compute.run(calls.process_id, timeout_s=TIMEOUT_S)
    card = await compute.run(check, residual_net(), {}, timeout_s=TIMEOUT_S)
    assert card == check(residual_net(), {})
    after = await compute.run(calls.process_id, timeout_s=TIMEOUT_S)
    assert before != after
    with pytest.raises(ModelInvalid, match="not an ONNX file"):
        await compute.run(check, b"\x08", {}, timeout_s=TIMEOUT_S)


async def test_attack_by_ten_million_nodes_of_two_bytes(compute: Compute) -> None:
    """Read, each takes a hundred bytes: what that comes to is bounded by the process that reads them."""
    with pytest.raises(ModelInvalid, match=r"takes too much memory|nodes; at most"):
        await compute.run(
            check, residual_net() + _field(7, b"\x0a\x00" * 10_000_000), {}, timeout_s=TIMEOUT_S
        )
    assert await works(compute)


def _field(number: int, data: bytes) -> bytes:
    """Return a field of a protobuf message."""
    size, varint = len(data), b""
    while size > 127:
        varint, size = varint + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + varint + bytes([size]) + data
