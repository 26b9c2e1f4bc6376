"""The best records of the whole models' operators, a file for each number of threads."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path

from resonator_hub.artifacts import Best
from resonator_hub.frontends import Workload
from resonator_hub.records import archive
from resonator_hub.records.archive import Archived

FOLDER = Path(__file__).parent / "records"
THREADS = (1, 2)


@cache
def target(threads: int) -> str:
    """Return this machine's TVM target with so many cores, as JSON."""
    probe = [sys.executable, "-m", "resonator_agent.tvm_probe"]
    facts = json.loads(subprocess.run(probe, stdout=subprocess.PIPE, check=True).stdout)
    return json.dumps({"kind": "llvm", "mcpu": facts["mcpu"], "num-cores": threads})


def archived(threads: int) -> tuple[Archived, ...]:
    """Return what was kept for this number of threads, on whatever processor."""
    path = _path(threads)
    return archive.unpack(base64.decodebytes(path.read_bytes())) if path.exists() else ()


def keep(threads: int, records: Iterable[Archived]) -> None:
    """Keep the best of `records` and of those kept before."""
    _write(threads, archive.best([*archived(threads), *records]))


def forget(threads: int, but: Collection[str]) -> None:
    """Drop the records of all workloads `but` these, by digest: the models do not have them any more."""
    _write(threads, [record for record in archived(threads) if record.workload in but])


def chosen(tasks: Iterable[Workload], threads: int) -> list[Best]:
    """Return the fastest record of each workload that has one, of another number of threads if need be."""
    fastest: dict[str, Archived] = {}
    for count in (threads, *THREADS):
        for record in archived(count):
            if record.target == target(count):
                fastest.setdefault(record.workload, record)  # they are in order
    return [Best(task.module, fastest[task.digest].trace) for task in tasks if task.digest in fastest]


def _write(threads: int, records: Collection[Archived]) -> None:
    FOLDER.mkdir(exist_ok=True)
    fresh = _path(threads).with_suffix(".new")
    fresh.write_bytes(base64.encodebytes(archive.pack(records)))  # text, as version control likes it
    fresh.replace(_path(threads))


def _path(threads: int) -> Path:
    return FOLDER / f"threads{threads}.records"
