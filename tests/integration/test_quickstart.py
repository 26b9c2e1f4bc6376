"""docs/quickstart-secure.md, run as it is printed: certificates for everybody in less than ten commands."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest

import small_models
from fakes import loopback
from fakes.brokers import find_mosquitto
from fakes.programs import LONG_S
from resonator import bundle
from resonator.bus.url import TLS_PORT
from resonator.trust import enrolment

TEXT = (Path(__file__).parents[2] / "docs" / "quickstart-secure.md").read_text()
COMMANDS = re.search(r"```sh\n(.*?)```", TEXT, re.DOTALL)
ALONE = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
"""A network and processes of their own: the ports are as printed, and nothing outlives the test."""


def test_trust_takes_less_than_ten_commands() -> None:
    assert COMMANDS is not None
    lines = COMMANDS[1].replace("\\\n", " ").splitlines()
    assert 0 < len([line for line in lines if line and not line.startswith("#")]) < 10


async def test_trust_from_nothing_to_a_tuned_model_as_it_is_printed(tmp_path: Path) -> None:
    find_mosquitto()
    assert COMMANDS is not None
    (tmp_path / "model.onnx").write_bytes(small_models.perceptron())
    script = tmp_path / "quickstart.sh"
    script.write_text(f"set -e\n{COMMANDS[1]}\nresonator ca list --json > list.json\n")
    said = await run(script, tmp_path)
    assert bundle.read(tmp_path / "tuned.bundle")[0].name == "model", said
    issued = {(one["role"], one["name"]) for one in json.loads((tmp_path / "list.json").read_text())}
    assert issued == {
        ("broker", "main"),
        ("hub", "main"),
        ("submitter", "ann"),
        ("device", "box1"),
        ("device", "box2"),
    }
    assert "has no TLS" not in said
    assert "message refused" not in said


async def run(script: Path, home: Path) -> str:
    """Run the script at home in an empty folder; return all that was said."""
    programs = Path(sys.executable).parent
    environment = {
        "HOME": str(home),
        "PATH": f"{programs}:{os.environ['PATH']}:/usr/sbin",
        "USER": "root",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    apart, said = alone(), home / "said"  # a file, because what goes on in the background holds on to it
    with said.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *apart,
            "bash",
            str(script),
            cwd=home,
            env=environment,
            stdout=file,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        code = await asyncio.wait_for(process.wait(), LONG_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for running in [] if apart else home.rglob("mosquitto.pid"):  # it left the group of the script
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(running.read_text()), signal.SIGTERM)
        await process.wait()
    assert code == 0, said.read_text()
    return said.read_text()


def alone() -> list[str]:
    """Return how to run something in a network of its own; here, where the machine allows none."""
    if shutil.which(ALONE[0]) and os.spawnvp(os.P_WAIT, ALONE[0], [*ALONE, "true"]) == 0:
        return [*ALONE, sys.executable, loopback.__file__]
    taken = [port for port in (TLS_PORT, enrolment.PORT) if not is_free(port)]
    if taken:
        pytest.skip(f"the ports that are printed are taken here, {taken}, and there are no others to be had")
    return []


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
