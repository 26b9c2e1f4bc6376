"""How much one sender may say, and what was refused of it: looked at before a message is, by its topic alone.

A good party at full speed stays far below what is allowed here. One that floods is cut down to a trickle,
since what is bad costs it more than what is good. Nothing that is turned away is lost for good: results come
again until they are acknowledged, questions until they are answered.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from resonator.bus.topics import ROOT

log = structlog.get_logger(__name__)

PRICE_OF_BAD = 20
"""What a refused message costs its sender, in messages."""
SENDERS = 20_000
"""How many channels of senders are told apart; those not heard for longest are forgotten first."""
LOG_EVERY_S = 10.0
_PREFIX = ROOT + "/"
_MOST_LOGS = 1000


@dataclass(frozen=True)
class Allowance:
    """How many messages a second a channel may carry for long, and how many at once."""

    rate: float
    burst: float


STRAY = Allowance(1, 20)
"""Below a sender's `up`, but no channel of ours."""
ALLOWANCES = {
    ("dev", "state"): Allowance(10, 200),
    ("dev", "window"): Allowance(20, 200),
    ("dev", "result"): Allowance(200, 2000),  # 12,000 kernels a minute, and an outbox that comes again
    ("dev", "telemetry"): Allowance(5, 100),
    ("dev", "blob"): Allowance(300, 1000),
    ("dev", "trust"): Allowance(1, 50),
    ("client", "request"): Allowance(50, 500),
    ("client", "blob"): Allowance(1000, 2000),
}


class _Bucket:
    """Tokens that come at a rate, up to a most; every message takes one."""

    __slots__ = ("_allowance", "_at", "_tokens")

    def __init__(self, allowance: Allowance, now: float) -> None:
        self._allowance = allowance
        self._tokens = allowance.burst
        self._at = now

    def take(self, now: float) -> bool:
        """Take a token, if there is one."""
        allowance = self._allowance
        tokens = self._tokens + (now - self._at) * allowance.rate
        self._at = now
        if tokens < 1:
            self._tokens = tokens
            return False
        self._tokens = min(tokens, allowance.burst) - 1
        return True

    def charge(self, price: float) -> None:
        """Take more; what is owed, a burst at most, keeps the sender out until it has come in again."""
        self._tokens = max(self._tokens - price, -self._allowance.burst)


class Gate:
    """Lets in what a sender may say; counts in `refused`, by reason, what was not let in or not taken."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.refused: Counter[str] = Counter()
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._logged: OrderedDict[tuple[str, str], _Silence] = OrderedDict()

    def admits(self, topic: str) -> bool:
        """Return whether one more message on a topic is listened to; what comes from above always is."""
        now = self._clock()
        bucket = self._buckets.get(topic) or self._bucket(topic, now)
        if bucket is None or bucket.take(now):
            return True
        self.refused["flood"] += 1
        self.complain("flood", topic, "more than anybody has to say")
        return False

    def refuse(self, why: str, topic: str, detail: str) -> None:
        """Count and log a message that was not acted upon, and have its sender pay."""
        now = self._clock()
        self.refused[why] += 1
        self.complain(why, topic, detail)
        bucket = self._bucket(topic, now)
        if bucket is not None:
            bucket.charge(PRICE_OF_BAD)

    def _bucket(self, topic: str, now: float) -> _Bucket | None:
        key, allowance = _channel(topic)
        if allowance is None:
            return None
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(allowance, now)
            if len(self._buckets) > SENDERS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket

    def complain(self, why: str, topic: str, detail: str) -> None:
        """Log, but for each reason and sender only every few seconds."""
        now = self._clock()
        key = (why, sender(topic))
        silence = self._logged.get(key)
        if silence is not None and now < silence.until:
            silence.unsaid += 1
            return
        unsaid = 0 if silence is None else silence.unsaid
        self._logged[key] = _Silence(now + LOG_EVERY_S)
        self._logged.move_to_end(key)
        if len(self._logged) > _MOST_LOGS:
            self._logged.popitem(last=False)
        more: dict[str, object] = {"unsaid": unsaid} if unsaid else {}
        match topic[:200].split("/"):
            case [_, _, site, "dev", device, *_]:
                more["device"] = f"{site}/{device}"
        log.warning("message refused", why=why, topic=topic[:200], detail=detail, **more)


@dataclass
class _Silence:
    """Until when nothing is logged, and how often there would have been a reason to."""

    until: float
    unsaid: int = 0


def sender(topic: str) -> str:
    """Return whose a topic is: all that it says keeps its order."""
    return "/".join(topic.split("/", 5)[:5])


def _channel(topic: str) -> tuple[str, Allowance | None]:
    """Return what a topic is counted by, and what is allowed there; None for what is not from below."""
    parts = topic.split("/", 7)
    if len(parts) < 6 or parts[5] != "up" or not topic.startswith(_PREFIX):
        return topic, None
    if len(parts) == 7 and (known := ALLOWANCES.get((parts[3], parts[6]))) is not None:
        return topic, known
    return "/".join(parts[:6]), STRAY
