"""What `resonator doctor` looks at on a box: whether it can measure, and measure well."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import platformdirs

from resonator import sandbox
from resonator.doctor import Examination, Finding, Where, failed, ok, warning
from resonator.doctor.disk import look_at_disk
from resonator.doctor.identity import look_at_identity
from resonator.trust import Party
from resonator_agent.conditions import ConditionsProbe
from resonator_agent.enroll import place

MANY_RESULTS = 1000


def examinations(where: Where) -> Sequence[Examination]:
    """Return what to look at; nothing where no agent has its state here, and none was named."""
    homes = platformdirs.user_state_path("resonator") / "agents"
    folders = [where.agent] if where.agent is not None else sorted(homes.glob("*/*/"))
    if not folders:
        return []
    box = [
        Examination("box cores", _look_at_cores),
        Examination("box sandbox", look_at_sandbox),
        Examination("box sensors", look_at_sensors),
        Examination("box runtime", _look_at_runtime),
    ]
    return [*box, *(one for folder in folders for one in _of_agent(folder, homes))]


def _of_agent(folder: Path, homes: Path) -> list[Examination]:
    look = [
        Examination("box disk", partial(look_at_disk, "box disk", folder)),
        Examination("box outbox", partial(look_at_outbox, folder / "outbox.sqlite")),
    ]
    if folder.is_relative_to(homes):
        site, name = folder.relative_to(homes).parts[:2]
        if (identity := place(site, name)).is_dir():
            party = Party("device", site, name)
            look.append(Examination("certificate", partial(look_at_identity, identity, party)))
    return look


def _look_at_cores() -> list[Finding]:
    cores = sorted(os.sched_getaffinity(0))
    says = f"{len(cores)} cores may be used, {os.cpu_count()} are there"
    if len(cores) < 2:
        advice = "give it a second core: the agent itself disturbs what it measures"
        return [warning("box cores", says, advice)]
    governors = {
        path.read_text().strip()
        for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    }
    if slow := governors - {"performance"}:
        advice = "`cpupower frequency-set -g performance`, unless the box is to be measured as it is"
        return [warning("box cores", f"{says}; their clock is governed by {', '.join(sorted(slow))}", advice)]
    return [ok("box cores", says)]


def look_at_sandbox(layers: Sequence[str] | None = None) -> list[Finding]:
    """Examine what confines kernels: `layers`, by default those that this Linux has."""
    there = sandbox.available() if layers is None else layers
    missing = sorted({sandbox.LANDLOCK, sandbox.SECCOMP}.difference(there))
    if missing:
        says = f"this Linux confines what is measured by {' and '.join(there) or 'nothing'}"
        advice = f"use a kernel with {' and '.join(missing)} (5.13 or later), or trust all who submit"
        return [warning("box sandbox", says, advice)]
    return [ok("box sandbox", f"kernels are confined by {' and '.join(there)}")]


def look_at_sensors(root: Path = Path("/")) -> list[Finding]:
    """Examine what tells whether a measurement was disturbed."""
    cores = sorted(os.sched_getaffinity(0))
    probe = ConditionsProbe(cores, clock=time.monotonic, own_pids=lambda: [os.getpid()], root=root)
    celsius, hertz = probe.temperature_c(), probe.frequency_hz()
    seen = [f"{celsius:.0f} °C" if celsius is not None else "", f"{hertz / 1e9:.2f} GHz" if hertz else ""]
    missing = [
        name for name, there in zip(("temperature", "clock frequency"), seen, strict=True) if not there
    ]
    probe.load()
    if not (root / "proc/stat").is_file():
        missing.append("load")
    if missing:
        advice = (
            "measurements are taken all the same, but nobody notices when that disturbs them: see lm-sensors"
        )
        return [warning("box sensors", f"{', '.join(missing)} cannot be read here", advice)]
    return [ok("box sensors", f"{' at '.join(seen)}; the load of others can be read")]


def look_at_outbox(path: Path) -> list[Finding]:
    """Examine what waits for the hub; the file is opened to be read alone."""
    if not path.is_file():
        return [ok("box outbox", "nothing was measured here yet")]
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        ) as connection:
            sound = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            waiting = connection.execute("SELECT count(*) FROM outbox").fetchone()[0]
    except sqlite3.Error as error:
        sound, waiting = str(error), 0
    if sound != "ok":
        advice = "restart the agent: it puts the file aside, and the hub measures again what it misses"
        return [failed("box outbox", f"{path} is damaged: {sound}", advice)]
    if waiting > MANY_RESULTS:
        says = f"{waiting} results wait for the hub"
        return [warning("box outbox", says, "see whether the broker and the hub are there")]
    return [ok("box outbox", f"{waiting} results wait for the hub")]


def _look_at_runtime() -> list[Finding]:
    if find_spec("tvm") is None:
        return [failed("box runtime", "there is no TVM to run kernels", "pip install 'resonator[agent]'")]
    return [ok("box runtime", "TVM is installed")]
