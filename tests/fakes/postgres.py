"""A real PostgreSQL of our own, that waits for the disk as by default and may be killed and started again."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fakes.brokers import free_port

ACCOUNT = "postgres"
"""PostgreSQL refuses to run as root; everybody else runs it as himself."""
ATTEMPTS = 50
WAIT_S = 60.0


def find_postgres() -> Path:
    """Return the folder of PostgreSQL's programs; skips the test where there is none, but fails it in CI."""
    found = shutil.which("postgres")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    reason = "PostgreSQL is not installed (Debian: apt install postgresql)"
    if folders and (folders[-1] / "initdb").exists():
        if os.geteuid() != 0 or _account_exists():
            return folders[-1]
        reason = f"PostgreSQL does not run as root, and there is no account {ACCOUNT!r}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _account_exists() -> bool:
    return any(entry.pw_name == ACCOUNT for entry in pwd.getpwall())


class Postgres:
    """A server on a free port of 127.0.0.1, the same after a restart; it asks for no password.

    `fresh()` makes databases. None of its methods is asynchronous: they take a second or two.
    """

    def __init__(self, folder: Path) -> None:
        self._programs = find_postgres()
        self._data = folder / "data"
        self._as: dict[str, Any] = {"cwd": folder}
        if os.geteuid() == 0:
            self._as |= {"user": ACCOUNT, "group": pwd.getpwnam(ACCOUNT).pw_gid, "extra_groups": []}
            shutil.chown(folder, ACCOUNT)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._made = 0
        self.port = 0
        self.log = ""

    def url(self, name: str = "postgres") -> str:
        """Return how a database is asked for, as an administrator would write it."""
        return f"postgresql://{ACCOUNT}@127.0.0.1:{self.port}/{name}"

    def fresh(self) -> str:
        """Make an empty database; return its URL."""
        self._made += 1
        name = f"fresh{self._made}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def create(self) -> None:
        """Make the cluster, without waiting for the disk; the server itself waits for it."""
        command = [self._programs / "initdb", "-D", self._data, "-U", ACCOUNT, "-A", "trust", "--no-sync"]
        made = subprocess.run(
            [*command, "-E", "UTF8", "--locale=C"], **self._as, capture_output=True, text=True, check=False
        )
        assert made.returncode == 0, made.stderr

    def start(self) -> None:
        """Start, and return when it takes connections."""
        for _ in range(ATTEMPTS):  # somebody took the port, or what was killed is not gone yet
            port = self.port or free_port()
            if self._listen(port):
                self.port = port
                return
        pytest.fail(f"PostgreSQL did not start: {self.log}")

    def _listen(self, port: int) -> bool:
        options = {
            "port": port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "shared_buffers": "16MB",
        }
        given = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        process = subprocess.Popen(
            [self._programs / "postgres", "-D", self._data, *given],
            **self._as,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(process, ready), daemon=True)
        self._reader.start()
        self._process = process
        assert ready.wait(WAIT_S), self.log
        if "ready to accept connections" in self.log.rpartition("starting PostgreSQL")[2]:
            return True
        self._gone()
        return False

    def _read(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.log += line
            if "ready to accept connections" in line:
                ready.set()
        ready.set()

    def stop(self) -> None:
        """Stop as an administrator does: every connection is cut, everything is written down."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._gone()

    def kill(self) -> None:
        """End the server and all of its children at once, as a loss of power would."""
        if self._process is None:
            return
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in (self._process.pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._gone()

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def disconnect_all(self) -> None:
        """Cut every connection but ours, in whatever they do; the server goes on."""
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(
                f"{others} WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()".encode()
            )

    def _gone(self) -> None:
        assert self._process is not None
        assert self._reader is not None
        self._process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._process = None


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL; `.fresh()` returns the URL of a new database. It takes about two seconds."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = Postgres(Path(folder))
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.kill()  # nobody needs what it would write down now
