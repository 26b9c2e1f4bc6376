"""A peer: asks until it is answered, hears each message once, refuses what is none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from resonator.bus import codec, topics
from resonator.bus import peer as peers
from resonator.bus.gate import Gate
from resonator.bus.peer import REMEMBERED, Peer, Received
from resonator.bus.port import Delivery
from resonator.errors import BusUnreachable, Refused
from resonator.failures import Failure, FailureKind
from resonator.messages import Ack, JobAccepted, JobCancel, JobList, JobQuery, Message, Rejected

UP, DN = topics.client_up("s", "c"), topics.client_dn("s", "c")


class Wire:
    """What a peer needs of a bus: published messages are kept, deliveries are put in by the test.

    `acknowledging` while cleared keeps every publish waiting, as a broker far away does.
    """

    def __init__(self) -> None:
        self.acknowledging = asyncio.Event()
        self.acknowledging.set()
        self.published: asyncio.Queue[tuple[str, codec.Decoded]] = asyncio.Queue()
        self._inbox: asyncio.Queue[Delivery] = asyncio.Queue()
        self.gate = Gate()

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        self.published.put_nowait((topic, codec.decode(payload)))
        await self.acknowledging.wait()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        while True:
            yield await self._inbox.get()

    def deliver(self, payload: bytes, topic: str = DN, retained: bool = False) -> None:
        self._inbox.put_nowait(Delivery(topic, payload, retained))

    def say(self, message: Message, *, id: str = "m1", corr: str | None = None, topic: str = DN) -> None:
        self.deliver(codec.encode(message, id=id, source="hub", corr=corr), topic)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
async def peer(wire: Wire) -> AsyncIterator[Peer]:
    peer = Peer(wire, "c")  # type: ignore[arg-type]
    serving = asyncio.create_task(peer.serve())
    yield peer
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def ask(peer: Peer, **options: float) -> asyncio.Task[JobAccepted]:
    return asyncio.create_task(
        peer.request(UP, JobCancel(job="j"), JobAccepted, reply_to=DN, **{"timeout": 10, **options})  # type: ignore[arg-type]
    )


async def test_a_request_is_answered_by_what_refers_to_it(peer: Peer, wire: Wire) -> None:
    asked = ask(peer)
    topic, sent = await wire.published.get()
    wire.say(JobAccepted(job="other"), id="m0", corr="somebody-else")
    wire.say(JobAccepted(job="j"), corr=sent.id)

    assert await asked == JobAccepted(job="j")
    assert (topic, sent.reply_to, sent.source) == (UP, DN, "c")
    assert peer.refused == {"unexpected": 1}


async def test_what_is_posted_holds_up_nobody_and_keeps_its_order(peer: Peer, wire: Wire) -> None:
    async def confirm(received: Received) -> None:
        peer.post(UP, Ack(ids=(received.id,)), corr=received.id)

    peer.on(JobQuery, confirm)
    wire.acknowledging.clear()
    for number in range(20):
        wire.say(JobQuery(), id=f"m{number}")

    posted = [await asyncio.wait_for(wire.published.get(), 10) for _ in range(20)]

    assert [sent.corr for _, sent in posted] == [f"m{number}" for number in range(20)]


async def test_a_post_that_cannot_be_sent_is_logged(peer: Peer, wire: Wire) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise BusUnreachable("nobody is there")

    wire.publish = refuse  # type: ignore[method-assign]
    with capture_logs() as logged:
        peer.post(UP, Ack(ids=()))
        await asyncio.gather(*peer._posting)

    assert [(line["event"], line["reason"]) for line in logged] == [("message not sent", "nobody is there")]


async def test_a_request_is_repeated_with_the_same_id_and_then_given_up(peer: Peer, wire: Wire) -> None:
    with pytest.raises(BusUnreachable, match=r"no answer to job\.cancel after 3 attempts of 0\.001 s"):
        await ask(peer, timeout=0.001, attempts=3)

    ids = {(await wire.published.get())[1].id for _ in range(3)}
    assert len(ids) == 1
    assert wire.published.empty()


async def test_a_rejection_is_raised_with_its_reason(peer: Peer, wire: Wire) -> None:
    asked = ask(peer)
    _, sent = await wire.published.get()
    wire.say(Rejected(failure=Failure(kind=FailureKind.JOB_INVALID, detail="no such model")), corr=sent.id)

    with pytest.raises(Refused, match=r"^no such model$"):
        await asked


async def test_a_rejection_without_words_still_says_something(peer: Peer, wire: Wire) -> None:
    asked = ask(peer)
    _, sent = await wire.published.get()
    wire.say(Rejected(failure=Failure(kind=FailureKind.JOB_INVALID)), corr=sent.id)

    with pytest.raises(Refused, match=r"^JOB_INVALID$"):
        await asked


async def test_an_answer_of_another_kind_is_a_refusal(peer: Peer, wire: Wire) -> None:
    asked = ask(peer)
    _, sent = await wire.published.get()
    wire.say(JobList(jobs=()), corr=sent.id)

    with pytest.raises(Refused, match=r"a job\.list, not a job\.accepted"):
        await asked


async def test_a_second_answer_changes_nothing(peer: Peer, wire: Wire) -> None:
    asked = ask(peer)
    _, sent = await wire.published.get()
    for number in range(2):
        wire.say(JobAccepted(job="j"), id=f"a{number}", corr=sent.id)

    assert await asked == JobAccepted(job="j")


async def hear(peer: Peer, count: int) -> asyncio.Future[list[Received]]:
    heard: list[Received] = []
    enough: asyncio.Future[list[Received]] = asyncio.get_running_loop().create_future()

    async def take(received: Received) -> None:
        heard.append(received)
        if len(heard) == count:
            enough.set_result(heard)

    peer.on(JobQuery, take)
    return enough


async def test_a_repetition_is_heard_as_one(peer: Peer, wire: Wire) -> None:
    enough = await hear(peer, 3)
    for name in ("a", "a", "b"):
        wire.say(JobQuery(), id=name)

    heard = await asyncio.wait_for(enough, 5)
    assert [received.repeated for received in heard] == [False, True, False]
    assert peer.refused == {"repeated": 1}
    assert heard[0].address == topics.parse(DN)


async def test_the_oldest_ids_are_forgotten_and_those_heard_again_are_not(peer: Peer, wire: Wire) -> None:
    enough = await hear(peer, REMEMBERED + 4)
    for name in ("second", "first", *map(str, range(REMEMBERED - 1)), "first", "second"):
        wire.say(JobQuery(), id=name)
    wire.say(JobQuery(), id="first")

    heard = await asyncio.wait_for(enough, 60)
    assert [received.repeated for received in heard[-3:]] == [True, False, True]


async def test_what_one_sender_says_makes_no_other_sender_forgotten(peer: Peer, wire: Wire) -> None:
    enough = await hear(peer, REMEMBERED + 3)
    wire.say(JobQuery(), id="mine")
    for number in range(REMEMBERED + 1):
        wire.say(JobQuery(), id=str(number), topic=topics.client_dn("s", "noisy"))
    wire.say(JobQuery(), id="mine")

    heard = await asyncio.wait_for(enough, 60)
    assert heard[-1].repeated


async def test_many_senders_together_take_no_more_memory_than_there_is(
    peer: Peer, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given room for 20 ids of all senders, and four of them
    monkeypatch.setattr(peers, "REMEMBERED_OF_ALL", 20)
    enough = await hear(peer, 42)
    boxes = [topics.client_dn("s", f"box-{number}") for number in range(4)]
    for number in range(10):
        for box in boxes:
            wire.say(JobQuery(), id=str(number), topic=box)
    # When one says its latest again, and one that is six old
    wire.say(JobQuery(), id="9", topic=boxes[0])
    wire.say(JobQuery(), id="4", topic=boxes[0])
    # Then five of each are remembered
    heard = await asyncio.wait_for(enough, 60)
    assert [received.repeated for received in heard[-2:]] == [True, False]


async def test_what_is_no_message_is_counted_and_changes_nothing(peer: Peer, wire: Wire) -> None:
    enough = await hear(peer, 1)
    wire.deliver(b"not msgpack")
    wire.say(JobQuery(), topic="resonator/v1/s/nonsense")
    wire.say(Ack(ids=("a",)), id="m0")
    wire.say(JobQuery())

    assert len(await asyncio.wait_for(enough, 5)) == 1
    assert peer.refused == {"invalid": 2, "unexpected": 1}
