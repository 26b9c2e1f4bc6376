"""Pulling one blob: which ranges to ask for and when, whatever the network does to the answers."""

from __future__ import annotations

from dataclasses import dataclass

from resonator.failures import Failure, FailureKind
from resonator.messages import MAX_CHUNK, BlobAbsent, BlobChunk, BlobRequest

FIRST_WINDOW = 2
MOST_WINDOW = 16
FIRST_TIMEOUT_S = 5.0
MOST_TIMEOUT_S = 30.0
MOST_ATTEMPTS = 10
MOST_QUEUE_S = 1.0
"""An answer that comes this much later than the fastest one waited behind others: the link is full."""


@dataclass
class _Asked:
    """A range that is on its way: since when, how often it was asked for, and when to ask again."""

    since: float
    attempts: int
    again_at: float


class Pull:
    """PURE: fetches `size` bytes of blob `digest` in chunks, `have` bytes of it being there already.

    Several requests are on their way at once, so that the round trip does not limit the throughput: the
    window grows with each answer that comes quickly, shrinks with one that had to wait behind others, and
    halves when one is overdue, so that a slow link is not flooded. A range is asked for again after a timeout
    that doubles, and is longer where answers are slow; after ten times the pull ends with a `failure`.
    Times are seconds on any clock that does not go backwards.
    """

    def __init__(self, digest: str, size: int, have: int = 0) -> None:
        self.digest = digest
        self.size = size
        self.failure: Failure | None = None
        self._written = have
        self._next = have
        self._window = FIRST_WINDOW
        self._fastest_s = float("inf")
        self._slow_s = 0.0
        """How long an answer may well take: the longest of late."""
        self._asked: dict[int, _Asked] = {}
        self._answered: list[_Asked] = []
        self._early: dict[int, bytes] = {}

    @property
    def complete(self) -> bool:
        """Whether all bytes are there."""
        return self._written == self.size

    @property
    def over(self) -> bool:
        """Whether there is nothing more to do, for better or worse."""
        return self.complete or self.failure is not None

    @property
    def wake_at(self) -> float | None:
        """When to call `requests()` again if nothing arrives before."""
        return min((asked.again_at for asked in self._asked.values()), default=None)

    def requests(self, now: float) -> list[BlobRequest]:
        """Return what to ask for at `now`: overdue ranges first, then new ones inside the window."""
        if self.over:
            return []
        for answered in self._answered:
            self._learn(now - answered.since)
        self._answered.clear()
        overdue = sorted(offset for offset, asked in self._asked.items() if asked.again_at <= now)
        if overdue:
            self._window = max(1, self._window // 2)
        for offset in overdue:
            if self._asked[offset].attempts == MOST_ATTEMPTS:
                self._fail(f"bytes from {offset} on did not come after {MOST_ATTEMPTS} requests")
                return []
        asked = [self._ask(offset, now) for offset in overdue]
        # What arrived early counts too: it bounds the memory a gap can cost.
        while self._next < self.size and len(self._asked) + len(self._early) < self._window:
            asked.append(self._ask(self._next, now))
            self._next += asked[-1].length
        return asked

    def _learn(self, took_s: float) -> None:
        self._fastest_s = min(self._fastest_s, took_s)
        self._slow_s = max(took_s, self._slow_s - (self._slow_s - took_s) / 8)
        waited = took_s - self._fastest_s > MOST_QUEUE_S
        self._window = max(1, self._window - 1) if waited else min(MOST_WINDOW, self._window + 1)

    def _ask(self, offset: int, now: float) -> BlobRequest:
        before = self._asked.get(offset) or _Asked(now, 0, now)
        timeout_s = min(MOST_TIMEOUT_S, FIRST_TIMEOUT_S * 2.0**before.attempts)
        again_at = now + max(timeout_s, 2 * self._slow_s)
        self._asked[offset] = _Asked(before.since, before.attempts + 1, again_at)
        return BlobRequest(digest=self.digest, offset=offset, length=self._length(offset))

    def _length(self, offset: int) -> int:
        return min(MAX_CHUNK, self.size - offset)

    def accept(self, answer: BlobChunk | BlobAbsent) -> bytes:
        """Take an answer and return the bytes to append to what is written; late and double ones are none."""
        if answer.digest != self.digest or self.over:
            return b""
        if isinstance(answer, BlobAbsent):
            self._fail("the peer does not have it")
            return b""
        if answer.total != self.size:
            self._fail(f"the peer's copy has {answer.total} bytes where {self.size} were announced")
            return b""
        if answer.offset not in self._asked:
            return b""
        if len(answer.data) != self._length(answer.offset):
            self._fail(
                f"{len(answer.data)} bytes came for {self._length(answer.offset)} from {answer.offset} on"
            )
            return b""
        self._answered.append(self._asked.pop(answer.offset))
        self._early[answer.offset] = answer.data
        return self._in_order()

    def _in_order(self) -> bytes:
        pieces = []
        while (piece := self._early.pop(self._written, None)) is not None:
            pieces.append(piece)
            self._written += len(piece)
        return b"".join(pieces)

    def _fail(self, detail: str) -> None:
        self.failure = Failure(kind=FailureKind.BLOB_CORRUPT, detail=f"blob {self.digest}: {detail}")
