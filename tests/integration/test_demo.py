"""The demo itself, with few trials: real processes, a real model, real measurements; and cut short."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from resonator import bundle
from small_models import residual_net


async def start_demo(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "resonator", "demo", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def running(sign: str) -> list[str]:
    """Return the command lines of all processes that mention `sign`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if sign in command:
            found.append(command)
    return found


async def test_the_demo_tunes_a_real_model_and_leaves_nothing_running(tmp_path: Path) -> None:
    process = await start_demo("--trials", "8", "--json", "-o", str(tmp_path / "b.tar"))
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
    assert not running(str(tmp_path))


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
async def test_a_demo_that_is_interrupted_says_so_in_one_sentence_and_leaves_nothing_running(
    tmp_path: Path, number: signal.Signals, times: int
) -> None:
    (tmp_path / "net.onnx").write_bytes(residual_net())
    folder = str(tmp_path / "state")
    process = await start_demo(
        "--model", str(tmp_path / "net.onnx"), "--state", folder, "-o", str(tmp_path / "b.tar")
    )
    assert process.stderr is not None
    assert process.stdout is not None
    begun = await asyncio.wait_for(process.stderr.readline(), 60)

    assert b"hub on core" in begun
    assert running(folder)
    process.send_signal(number)
    first = await asyncio.wait_for(process.stderr.readline(), 60)
    if times > 1:
        process.send_signal(number)

    rest = await asyncio.wait_for(process.stderr.read(), 60)
    assert await process.wait() == 130, rest
    assert first == b"resonator: interrupted: stopping the hub and its agents\n"
    assert rest == b""
    assert await process.stdout.read() == b""
    assert not running(folder)
