"""What systemd is told of a service: that it is ready, how it fares, that it is alive (sd_notify(3)).

Outside of systemd, where NOTIFY_SOCKET is not set, nothing is said to anybody.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping

import structlog

log = structlog.get_logger(__name__)
EVERY_S = 10.0
"""How often the status is told where no watchdog asks for more."""


class Service:
    """Tells the service manager; a manager that does not listen is not worth an error."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(environment.get("WATCHDOG_USEC", "0")) / 1e6 if ours else 0.0
        self._said = ""

    def ready(self) -> None:
        """Say that the start is over."""
        self._tell("READY=1")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._tell("STOPPING=1")

    async def keep_alive(self, status: Callable[[], str]) -> None:
        """Say for ever that the event loop turns, and in a sentence what `systemctl status` shows."""
        if not self._address:
            return
        while True:
            said = _told(status)
            news = [] if said == self._said else [f"STATUS={said}"]
            self._tell("WATCHDOG=1", *news)
            self._said = said
            await asyncio.sleep(min(EVERY_S, self.watchdog_s / 3) if self.watchdog_s else EVERY_S)

    def _tell(self, *assignments: str) -> None:
        if not self._address:
            return
        # A name that begins with @ is in Linux's abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(assignments).encode(), address)
        except OSError as error:
            log.debug("the service manager does not listen", reason=str(error))


def _told(status: Callable[[], str]) -> str:
    """Return the status; a sentence that cannot be made is no reason to be restarted."""
    try:
        return status()
    except Exception:
        log.exception("the status cannot be told")
        return "the status cannot be told: see the log"
