"""When what was not acknowledged is sent again: soon at first, ever more rarely then."""

from __future__ import annotations

from itertools import pairwise

from resonator_agent.attempts import FIRST_S, LONGEST_S, UNLINKED_S, Attempts


def test_what_was_never_sent_is_due() -> None:
    assert Attempts().due("a", 0.0)


def test_a_message_is_repeated_ever_more_rarely() -> None:
    attempts, sent = Attempts(), []
    for at in range(24 * 3600):
        if attempts.due("a", at):
            attempts.sent("a", at)
            sent.append(at)
    assert sent[:6] == [0, 10, 30, 70, 150, 310]
    assert {later - earlier for earlier, later in pairwise(sent[6:])} == {LONGEST_S}


def test_after_a_broken_connection_everything_is_due_at_once() -> None:
    attempts = Attempts()
    attempts.sent("a", 0.0)
    attempts.start_over()
    assert attempts.due("a", 0.0)


def test_a_link_that_is_back_has_time_to_deliver_its_queue() -> None:
    attempts = Attempts()
    for at in (0.0, FIRST_S, 3 * FIRST_S):
        attempts.sent("a", at)
    attempts.expect(1000.0)
    assert not attempts.due("a", 1000.0 + FIRST_S - 1)
    assert attempts.due("a", 1000.0 + FIRST_S)


def test_what_has_arrived_is_forgotten() -> None:
    attempts = Attempts()
    attempts.sent("a", 0.0)
    attempts.forget("a")
    assert attempts.due("a", 0.0)


def test_without_a_link_a_message_is_tried_now_and_then_since_its_return_may_be_unheard() -> None:
    attempts = Attempts()
    assert attempts.due("a", 0.0, linked=False)
    attempts.sent("a", 0.0)
    assert not attempts.due("a", UNLINKED_S - 1, linked=False)
    assert attempts.due("a", UNLINKED_S, linked=False)
