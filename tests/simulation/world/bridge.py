"""A bridge as `resonator site config` writes it: two queues that persist, and a presence on both brokers."""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict, deque
from typing import cast

from resonator.bus import topics
from resonator.bus.bridge import DOWN, UP
from resonator_hub.broker.filters import matches
from resonator_hub.sites.bridge import KEEPALIVE_S
from simulation.world.broker import Broker
from simulation.world.wire import Lane, Wire

RETRY_S = 5.0
QUEUE = 20_000
"""What `resonator site config` has a broker keep for a link that is cut, in messages."""
UNDER_WAY = 20
"""Mosquitto's `max_inflight_messages`."""
Message = tuple[str, bytes, bool]


class Channel:
    """One direction: messages wait at the broker `home` until the other has acknowledged them.

    Beyond `limit` messages what comes is dropped, after its sender was told that it had arrived.
    """

    def __init__(self, home: Broker, target: Broker, filters: tuple[str, ...], wire: Wire) -> None:
        self.wire = wire
        self.limit = QUEUE
        self.dropped = 0
        self._home = home
        self._target = target
        self._filters = filters
        self._numbers = itertools.count()
        self._queue: deque[Message] = deque()
        self._under_way: OrderedDict[int, Message] = OrderedDict()
        self._lanes: tuple[Lane, Lane] | None = None
        home.bridges.append(self)
        home.kept.append(self)

    def __len__(self) -> int:
        return len(self._queue) + len(self._under_way)

    def wants(self, topic: str) -> bool:
        """Whether the bridge carries a topic in this direction."""
        return any(matches(name, topic) for name in self._filters)

    def deliver(self, topic: str, payload: bytes, retained: bool) -> None:
        """Queue a message."""
        self._home.touch()
        if len(self) >= self.limit:
            self.dropped += 1
            return
        self._queue.append((topic, payload, retained or topic in self._home.retained))
        self._pump()

    def open(self) -> None:
        """The bridge is connected: send what waits, and all that is retained."""
        self._lanes = (Lane(self.wire), Lane(self.wire))
        self._pump()
        for topic, payload in list(self._home.retained.items()):
            if self.wants(topic):
                self.deliver(topic, payload, True)

    def close(self) -> None:
        """The bridge is not connected: what was not acknowledged will be sent again."""
        if self._lanes is not None:
            for lane in self._lanes:
                lane.close()
            self._lanes = None
        self._queue.extendleft(reversed(self._under_way.values()))
        self._under_way.clear()

    def saved(self) -> object:
        """Return what is on disk from now on."""
        return [*self._under_way.values(), *self._queue]

    def restore(self, saved: object) -> None:
        """Go back to what was on disk."""
        self._under_way.clear()
        self._queue = deque(cast("list[Message]", saved))

    def _pump(self) -> None:
        while self._lanes is not None and self._queue and len(self._under_way) < UNDER_WAY:
            number, message = next(self._numbers), self._queue.popleft()
            self._under_way[number] = message
            self._lanes[0].send(self._arrive, number, message)

    def _arrive(self, number: int, message: Message) -> None:
        assert self._lanes is not None, "closed lanes carry nothing"
        self._target.route(*message)
        self._lanes[1].send(self._acknowledged, number)

    def _acknowledged(self, number: int) -> None:
        self._home.touch()
        self._under_way.pop(number, None)
        self._pump()


class Bridge:
    """Connects again and again, from the site's side; the hub's broker publishes its will when it is gone."""

    keepalive_s = KEEPALIVE_S

    def __init__(self, site: str, here: Broker, hub: Broker, wire: Wire) -> None:
        self._topic = topics.bridge_state(site, here.name)
        self._here, self._hub = here, hub
        self._wire = wire
        own = f"{topics.ROOT}/{site}"
        self.up = Channel(here, hub, (f"{own}/+/+/up/#",), wire)
        down = (f"{own}/+/+/dn/#", f"{own}/jobs/+/status", f"{topics.ROOT}/+/hub/+/state")
        self.down = Channel(hub, here, down, wire)
        self._connected = False

    async def run(self) -> None:
        """Keep the brokers connected."""
        while True:
            if not self._connected and self._here.alive and self._hub.alive and not self._wire.is_cut:
                self._connect()
            await asyncio.sleep(RETRY_S)

    def broken(self) -> None:
        """One of the brokers is gone."""
        if self._connected:
            self._disconnect()
            self._tell(DOWN)

    def silent_for_broker(self) -> None:
        """The hub's broker has heard nothing for too long."""
        self.broken()

    def silent_for_client(self) -> None:
        """The site's broker has heard nothing for too long."""
        self.broken()

    def _connect(self) -> None:
        self._connected = True
        self._wire.ends.append(self)
        self._tell(UP)
        self.up.open()
        self.down.open()

    def _tell(self, state: bytes) -> None:
        for broker in (self._hub, self._here):
            if broker.alive:
                broker.route(self._topic, state, True)

    def _disconnect(self) -> None:
        self._connected = False
        self._wire.ends.remove(self)
        self.up.close()
        self.down.close()
