"""The systemd units: valid, and as tight as an agent and a hub allow."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = {"resonator-agent.service": 1.6, "resonator-hub.service": 1.2}
"""How exposed each may be, of 10: `systemd-analyze security` of systemd 252."""


def analyzed(*arguments: str | Path) -> str:
    """Return what `systemd-analyze` says, which must be content."""
    if shutil.which("systemd-analyze") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("systemd-analyze is not installed")
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_of_the_sandbox_is_valid(unit: str, tmp_path: Path) -> None:
    text = (DEPLOY / unit).read_text().replace("/opt/resonator/bin/resonator", "/bin/true")
    (tmp_path / unit).write_text(text)

    said = analyzed("verify", "--man=no", tmp_path / unit)

    assert unit not in said


@pytest.mark.parametrize(("unit", "most"), UNITS.items())
def test_the_unit_of_the_sandbox_exposes_little(unit: str, most: float) -> None:
    said = analyzed("security", "--offline=true", "--no-pager", DEPLOY / unit)

    overall = re.search(r"Overall exposure level for .*: ([0-9.]+)", said)
    assert overall is not None, said
    assert float(overall[1]) <= most
