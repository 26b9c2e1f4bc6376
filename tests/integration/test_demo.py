"""The demo itself, with few trials: real processes, a real model, real measurements."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import psutil

from resonator import bundle


async def test_the_demo_tunes_a_real_model_and_leaves_nothing_running(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "resonator",
            "demo",
            "--trials",
            "8",
            "--json",
            "-o",
            str(tmp_path / "b.tar"),
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complaints = await asyncio.wait_for(process.communicate(), 400)
    assert process.returncode == 0, complaints.decode()

    *statuses, report = [json.loads(line) for line in said.splitlines()]
    assert statuses[-1]["state"] == "succeeded"
    assert statuses[-1]["tuned"]["error"] <= 1e-3
    assert report["trials"] == 8
    assert report["onnxruntime_s"] > 0
    assert 0 < report["tuned_s"] < report["untuned_s"]
    assert bundle.read(tmp_path / "b.tar")[0].name.startswith("light_")
    assert ElementTree.parse(tmp_path / "b.svg").getroot().tag.endswith("svg")
    assert not [running for running in psutil.process_iter(["cmdline"]) if str(tmp_path) in _command(running)]


def _command(process: psutil.Process) -> str:
    return " ".join(process.info["cmdline"] or ())
