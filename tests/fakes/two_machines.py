"""A program that makes two machines out of one, joined by a wire, and types into each what it is told.

    python two_machines.py HOME NAME ADDRESS HOST NAME ADDRESS HOST SCRIPT...

Both have a home folder below HOME and know each other by HOST. A script that begins with `# at NAME` is
typed at that machine, in its only shell. This needs a mount and a network namespace of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PREFIX = 24
SCP = """\
#!/bin/sh
# All homes are on one disk here: scp -r HOST:PATH PLACE
exec cp -r "{home}/${{2%%:*}}/${{2#*:}}" "$3"
"""


@dataclass(frozen=True)
class Machine:
    """What it is called, its address, and its name in the network."""

    name: str
    address: str
    host: str


class Shell:
    """A shell at a machine, which keeps its variables and its jobs."""

    def __init__(self, within: Sequence[str], home: Path) -> None:
        home.mkdir(exist_ok=True)
        self._answers, answering = os.pipe()
        os.set_inheritable(answering, True)
        self._answering = answering
        self._process = subprocess.Popen(
            [*within, "bash", "-e"],
            stdin=subprocess.PIPE,
            cwd=home,
            env={**os.environ, "HOME": str(home)},
            pass_fds=[answering],
            text=True,
        )
        os.close(answering)

    def type(self, script: Path) -> None:
        """Run a script; ends this program where that fails."""
        assert self._process.stdin is not None
        self._process.stdin.write(f". {script} < /dev/null\necho fine >&{self._answering}\n")
        self._process.stdin.flush()
        if os.read(self._answers, 16) != b"fine\n":
            raise SystemExit(f"{script.name} failed:\n{script.read_text()}")


def ip(*arguments: str) -> None:
    """Run ip(8)."""
    subprocess.run(["ip", *arguments], check=True)


def join(here: Machine, there: Machine) -> Sequence[str]:
    """Join this network to another one by a wire, `uplink` at its end; return what runs a command there."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    ip("netns", "add", there.name)
    ip("link", "add", "downlink", "type", "veth", "peer", "name", "uplink", "netns", there.name)
    for space, end, machine in (((), "downlink", here), (("-netns", there.name), "uplink", there)):
        ip(*space, "address", "add", f"{machine.address}/{PREFIX}", "dev", end)
        ip(*space, "link", "set", end, "up")
        ip(*space, "link", "set", "lo", "up")
    return ("nsenter", f"--net=/run/netns/{there.name}")


def introduce(home: Path, machines: Sequence[Machine]) -> None:
    """Have the machines know each other by name, and copy files from each other."""
    hosts, tools = home / "hosts", home / "tools"
    hosts.write_text("".join(f"{one.address} {one.host}\n" for one in machines) + "127.0.0.1 localhost\n")
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)
    tools.mkdir()
    (tools / "scp").write_text(SCP.format(home=home))
    (tools / "scp").chmod(0o755)
    for one in machines:
        (home / one.host).symlink_to(home / one.name)
    os.environ["PATH"] = f"{tools}:{os.environ['PATH']}"


def main() -> None:
    """Do what the arguments say."""
    home = Path(sys.argv[1])
    here, there = Machine(*sys.argv[2:5]), Machine(*sys.argv[5:8])
    within = join(here, there)
    introduce(home, (here, there))
    shells = {here.name: Shell((), home / here.name), there.name: Shell(within, home / there.name)}
    for script in map(Path, sys.argv[8:]):
        name = script.read_text().splitlines()[0].removeprefix("# at ")
        shells[name].type(script)


if __name__ == "__main__":
    main()
