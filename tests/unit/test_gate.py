"""The gate: good parties at full speed never meet it, floods are cut to a trickle, logs stay short."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from resonator.bus import topics
from resonator.bus.gate import ALLOWANCES, LOG_EVERY_S, PRICE_OF_BAD, SENDERS, Gate

RESULT = topics.device_up("lab", "box", "result")
OTHER = topics.device_up("lab", "other", "result")


class Clock:
    """A clock in the hands of the test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate(clock)


def admitted(gate: Gate, topic: str, count: int) -> int:
    return sum(gate.admits(topic) for _ in range(count))


def test_attack_by_flood_one_channel_of_one_sender_is_bounded_and_comes_back(
    gate: Gate, clock: Clock
) -> None:
    allowance = ALLOWANCES["dev", "result"]
    assert admitted(gate, RESULT, 10_000) == allowance.burst
    assert gate.refused == {"flood": 10_000 - allowance.burst}
    clock.now += 1
    assert admitted(gate, RESULT, 10_000) == allowance.rate
    assert gate.admits(OTHER)
    assert gate.admits(topics.device_up("lab", "box", "state"))


def test_attack_by_flood_what_is_bad_costs_more_than_what_is_good(gate: Gate, clock: Clock) -> None:
    taken = 0
    for _ in range(10):  # a second of a flood of nonsense
        for _ in range(1000):
            if gate.admits(RESULT):
                taken += 1
                gate.refuse("invalid", RESULT, "nonsense")
        clock.now += 0.1
    allowance = ALLOWANCES["dev", "result"]
    assert taken <= (allowance.burst + allowance.rate) / (1 + PRICE_OF_BAD) + 2
    assert gate.refused == {"invalid": taken, "flood": 10_000 - taken}
    clock.now += 2 * allowance.burst / allowance.rate + 1
    assert admitted(gate, RESULT, 5000) == allowance.burst, "a sender that has calmed down is heard again"


def test_a_device_at_full_speed_and_an_outbox_that_comes_again_pass(gate: Gate, clock: Clock) -> None:
    assert admitted(gate, RESULT, 200) == 200  # as many as an agent sends again in one go
    for _ in range(600):  # a minute of 4,800 kernels, with their pieces of blobs
        clock.now += 0.1
        assert admitted(gate, RESULT, 8) == 8
        assert admitted(gate, topics.device_up("lab", "box", "blob"), 16) == 16
    assert not gate.refused


def test_every_channel_from_below_has_an_allowance() -> None:
    below = {("dev", channel) for channel in topics.DEVICE_UP}
    assert set(ALLOWANCES) == below | {("client", channel) for channel in topics.CLIENT_UP}


def test_what_comes_from_above_and_other_peoples_topics_always_pass(gate: Gate) -> None:
    for topic in (topics.device_dn("lab", "box", "kernel"), topics.job_status("lab", "job"), "a/b/c", ""):
        assert admitted(gate, topic, 5000) == 5000


def test_attack_by_flood_on_topics_that_nobody_knows_shares_one_small_allowance(gate: Gate) -> None:
    strays = [f"resonator/v1/lab/dev/box/up/x{number}" for number in range(1000)]
    assert sum(map(gate.admits, strays)) < 50
    assert sum(gate.admits(f"{RESULT}/{number}") for number in range(1000)) == 0
    assert gate.admits(RESULT)


def test_attack_by_flood_under_ever_new_names_takes_no_memory(gate: Gate) -> None:
    for number in range(SENDERS + 1000):
        gate.refuse("invalid", topics.device_up("lab", f"box{number}", "result"), "nonsense")
    assert len(gate._buckets) == SENDERS
    assert len(gate._logged) <= 1000


def test_attack_by_flood_is_logged_once_for_each_reason_and_sender_in_a_while(
    gate: Gate, clock: Clock
) -> None:
    with capture_logs() as logs:
        for _ in range(50):
            gate.refuse("invalid", RESULT, "nonsense")
            gate.refuse("unasked", RESULT, "nonsense")
            gate.refuse("invalid", OTHER, "nonsense")
        assert len(logs) == 3
        clock.now += LOG_EVERY_S
        gate.refuse("invalid", RESULT, "nonsense")
    assert logs[-1]["unsaid"] == 49
    assert gate.refused["invalid"] == 101
