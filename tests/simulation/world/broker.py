"""A broker as Mosquitto is one: it routes, retains, and saves to its disk once a second."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from resonator_hub.broker.filters import matches
from simulation.world.wire import Wire

if TYPE_CHECKING:
    from simulation.world.connection import Connection

SAVE_S = 1.0
"""Mosquitto's `autosave_interval`: what is younger than that a `kill -9` takes."""


class Subscriber(Protocol):
    """Whoever messages are routed to."""

    wire: Wire

    def wants(self, topic: str) -> bool:
        """Whether it has subscribed to a topic."""

    def deliver(self, topic: str, payload: bytes, retained: bool) -> None:
        """Give it a message."""


class Kept(Protocol):
    """What a broker saves beside its retained messages: the queue of a bridge."""

    def saved(self) -> object:
        """Return what is on disk from now on."""

    def restore(self, saved: object) -> None:
        """Go back to what was on disk."""


class Broker:
    """Clients have clean sessions; those of bridges persist. `heard` sees every message that is routed."""

    def __init__(self, name: str, heard: Callable[[str, str, bytes], None]) -> None:
        self.name = name
        self.alive = True
        self.clients: dict[str, Connection] = {}
        self.bridges: list[Subscriber] = []
        self.kept: list[Kept] = []
        self.retained: dict[str, bytes] = {}
        self._heard = heard
        self._routes: dict[str, list[Subscriber]] = {}
        self._saved: tuple[dict[str, bytes], list[object]] = ({}, [])
        self._save_at = 0.0

    # --- clients ------------------------------------------------------------------------------------------

    def accept(self, client: Connection) -> None:
        """Take a client in; one of the same name is thrown out, and its will is published."""
        if not self.alive:
            return
        former = self.clients.get(client.client_id)
        self.clients[client.client_id] = client
        if former is not None:
            former.break_off("another client has taken its place")
            self._publish_will(former)
        client.accepted()

    def subscribe(self, client: Connection, filters: tuple[str, ...], number: int) -> None:
        """Note what a client wants, and give it what is retained of that."""
        if self.clients.get(client.client_id) is not client:
            return
        client.filters.update(dict.fromkeys(filters))
        self._routes.clear()
        client.answer(number)
        for topic, payload in list(self.retained.items()):
            if any(matches(name, topic) for name in filters):
                self._hand(client, topic, payload, retained=True)

    def publish(self, client: Connection, topic: str, payload: bytes, retain: bool, number: int) -> None:
        """Route what a client says, and acknowledge it; number 0 asks for no acknowledgement."""
        if self.clients.get(client.client_id) is not client:
            return
        self.route(topic, payload, retain)
        if number:
            client.answer(number)

    def leave(self, client: Connection) -> None:
        """A client says goodbye: its will is forgotten."""
        if self.clients.get(client.client_id) is client:
            del self.clients[client.client_id]
            self._routes.clear()

    def lose(self, client: Connection) -> None:
        """A client is gone without a word."""
        if self.alive and self.clients.get(client.client_id) is client:
            self.leave(client)
            self._publish_will(client)

    def _publish_will(self, client: Connection) -> None:
        if client.will is not None:
            self.route(client.will.topic, client.will.payload, client.will.retain)

    # --- messages -----------------------------------------------------------------------------------------

    def route(self, topic: str, payload: bytes, retain: bool) -> None:
        """Hand a message to all who want it."""
        self.touch()
        self._heard(self.name, topic, payload)
        if retain:
            self.retained[topic] = payload
        for subscriber in self._route(topic):
            self._hand(subscriber, topic, payload, retained=False)

    def _route(self, topic: str) -> list[Subscriber]:
        route = self._routes.get(topic)
        if route is None:
            everybody: list[Subscriber] = [*self.clients.values(), *self.bridges]
            route = self._routes[topic] = [one for one in everybody if one.wants(topic)]
        return route

    def _hand(self, subscriber: Subscriber, topic: str, payload: bytes, *, retained: bool) -> None:
        """Hand over a message, as reliably as the wire's mischief allows."""
        mischief, chance = subscriber.wire.mischief, subscriber.wire.chance
        if not (mischief.lost or mischief.repeated or mischief.late):
            subscriber.deliver(topic, payload, retained)
            return
        loop, fate = asyncio.get_running_loop(), chance.random()
        late_s = chance.uniform(0, mischief.most_s)
        if fate < mischief.lost:
            return
        fate -= mischief.lost
        if fate < mischief.late:
            loop.call_later(late_s, subscriber.deliver, topic, payload, retained)
            return
        subscriber.deliver(topic, payload, retained)
        if fate - mischief.late < mischief.repeated:
            loop.call_later(late_s, subscriber.deliver, topic, payload, retained)

    # --- disk ---------------------------------------------------------------------------------------------

    def touch(self) -> None:
        """Save what there was before the present second began; to be called before anything changes."""
        now = asyncio.get_running_loop().time()
        if now >= self._save_at:
            self._saved = (dict(self.retained), [one.saved() for one in self.kept])
            self._save_at = (math.floor(now / SAVE_S) + 1) * SAVE_S

    def die(self) -> None:
        """End as `kill -9` does: no will is published, and what was not saved yet is gone."""
        self.touch()
        self.alive = False
        for client in list(self.clients.values()):
            client.break_off("the broker hung up")
        self.clients.clear()
        self._routes.clear()
        self.retained = dict(self._saved[0])
        for one, saved in zip(self.kept, self._saved[1], strict=False):
            one.restore(saved)

    def rise(self) -> None:
        """Start again with what was saved."""
        self.alive = True
