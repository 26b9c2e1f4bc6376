"""How long a run took, and how much of it other processes had the core for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from resonator_agent.profiler_worker import timed

SPIN = "print(flush=True)\nwhile True: pass"


def spin(cpu_s: float) -> None:
    until = time.thread_time() + cpu_s
    while time.thread_time() < until:
        pass


@pytest.fixture
def core() -> Iterator[int]:
    allowed = os.sched_getaffinity(0)
    one = max(allowed)
    os.sched_setaffinity(0, {one})
    yield one
    os.sched_setaffinity(0, allowed)


def test_a_run_lasts_as_long_as_its_call() -> None:
    run = timed(lambda: spin(0.02))

    assert 0.02 <= run.took_s < 10
    assert 0 <= run.lost_s <= run.took_s


def test_what_another_process_had_of_the_core_is_known(core: int) -> None:
    with subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE) as rival:
        assert rival.stdout is not None
        rival.stdout.readline()

        run = timed(lambda: spin(0.2))

        rival.kill()
    assert run.lost_s > 0.05
    assert run.took_s - run.lost_s == pytest.approx(0.2, rel=0.5)
