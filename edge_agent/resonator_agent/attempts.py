"""PURE: when a message that was not acknowledged is due to be sent again."""

from __future__ import annotations

FIRST_S = 10.0
"""How long the hub may take to acknowledge before a message is sent again; twice as long each time."""
LONGEST_S = 300.0
"""A hub that is away for hours finds each message a few dozen times at its broker, not thousands of times."""
UNLINKED_S = 3600.0
"""How often a message is tried while the site's link is said to be cut: its return may have gone unheard."""


class Attempts:
    """Counts how often each message was sent; `at` is in seconds, on a clock that nobody sets."""

    def __init__(self) -> None:
        self._sent: dict[str, tuple[int, float]] = {}

    def sent(self, message_id: str, at: float) -> None:
        """Note that a message is on its way."""
        count, _ = self._sent.get(message_id, (0, at))
        self._sent[message_id] = (count + 1, at)

    def due(self, message_id: str, at: float, *, linked: bool = True) -> bool:
        """Return whether a message has to be sent, for the first time in this life or again."""
        count, last = self._sent.get(message_id, (0, at))
        wait_s = min(FIRST_S * 2.0 ** min(count - 1, 30), LONGEST_S) if linked else UNLINKED_S
        return count == 0 or at - last >= wait_s

    def forget(self, message_id: str) -> None:
        """Forget a message: it has arrived."""
        self._sent.pop(message_id, None)

    def start_over(self) -> None:
        """Hold everything for due: what was sent on a connection that broke may be lost with it."""
        self._sent.clear()

    def expect(self, at: float) -> None:
        """Give everything that was sent time to arrive: a link is there again, its queue is on the way."""
        self._sent = dict.fromkeys(self._sent, (1, at))
