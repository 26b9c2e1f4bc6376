"""docs/quickstart-secure.md, run as it is printed: certificates for everybody in less than ten commands."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

import small_models
from fakes import loopback, printed
from fakes.brokers import find_mosquitto
from resonator import bundle
from resonator.bus.url import TLS_PORT
from resonator.trust import enrolment

COMMANDS = printed.blocks("quickstart-secure.md")[0]


def test_trust_takes_less_than_ten_commands() -> None:
    lines = COMMANDS.replace("\\\n", " ").splitlines()
    assert 0 < len([line for line in lines if line and not line.startswith("#")]) < 10


async def test_trust_from_nothing_to_a_tuned_model_as_it_is_printed(tmp_path: Path) -> None:
    find_mosquitto()
    (tmp_path / "model.onnx").write_bytes(small_models.perceptron())
    script = tmp_path / "quickstart.sh"
    script.write_text(f"set -e\n{COMMANDS}\nresonator ca list --json > list.json\n")
    elsewhere = apart()
    try:
        said = await printed.run([*elsewhere, "bash", str(script)], tmp_path)
    finally:
        # What has gone into the background has left the group of the script.
        for running in [] if elsewhere else tmp_path.rglob("mosquitto.pid"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(running.read_text()), signal.SIGTERM)
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
    assert printed.refusals(said) == []


def apart() -> list[str]:
    """Return how to run something in a network of its own; here, where the machine allows none."""
    if alone := printed.alone():
        return [*alone, sys.executable, loopback.__file__]
    taken = [port for port in (TLS_PORT, enrolment.PORT) if not is_free(port)]
    if taken:
        pytest.skip(f"the ports that are printed are taken here, {taken}, and there are no others to be had")
    return []


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
