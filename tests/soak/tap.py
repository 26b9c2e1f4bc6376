"""Somebody who listens at the cloud's broker: which results came, how often, and which were acknowledged."""

from __future__ import annotations

import time
from collections import Counter

from fakes.guarantees import Books, Result
from resonator.bus import topics
from resonator.bus.mqtt import MqttBus
from resonator.bus.peer import Peer, Received
from resonator.ids import CandidateId, JobId, device_id
from resonator.messages import Ack, KernelResult


class Tap:
    """Hears results on their way to the hub and the answers to them, while the broker is up."""

    def __init__(self, bus: MqttBus) -> None:
        self.delivered: Counter[str] = Counter()
        self._results: dict[str, Result] = {}
        self._acknowledged: dict[str, float] = {}
        self._bus = bus
        self.peer = Peer(bus, "tap")
        self.peer.on(KernelResult, self._on_result)
        self.peer.on(Ack, self._on_ack)

    async def subscribe(self) -> None:
        await self._bus.subscribe(f"{topics.ROOT}/+/dev/+/up/result", f"{topics.ROOT}/+/dev/+/dn/ack")

    async def _on_result(self, received: Received) -> None:
        result = received.message
        assert isinstance(result, KernelResult)
        device = device_id(received.address.site, received.address.name)
        self.delivered[received.id] += 1
        self._results[received.id] = (device, result.epoch, CandidateId(result.candidate))

    async def _on_ack(self, received: Received) -> None:
        ack = received.message
        assert isinstance(ack, Ack)
        for name in ack.ids:
            self._acknowledged.setdefault(name, time.time())

    @property
    def repeats(self) -> int:
        """How many results came once more than once."""
        return sum(self.delivered.values()) - len(self.delivered)

    def breaches(self, books: Books) -> list[str]:
        """Every result that was acknowledged is in the journal, unless its job had ended before."""
        known = {(e.device, e.epoch, e.candidate) for e in books.measured()}
        found = []
        for name, at in self._acknowledged.items():
            result = self._results.get(name)
            if result is None or result in known:
                continue
            ended_at = books.ended_at.get(JobId(result[2].partition("/")[0]))
            if ended_at is None or ended_at > at:
                found.append(f"{result} was acknowledged and is not in the journal")
        return found
