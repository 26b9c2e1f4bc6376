"""Topics: spelt and parsed in one place, the same both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resonator.bus import topics
from resonator.bus.topics import Address
from resonator.errors import MessageInvalid
from resonator.ids import NAME_PATTERN, is_name
from resonator_hub.broker.filters import matches

names = st.from_regex(NAME_PATTERN.removesuffix("$"), fullmatch=True)


@given(names, names, st.sampled_from(topics.DEVICE_UP))
def test_device_topics_are_read_as_they_are_spelt(site: str, device: str, channel: str) -> None:
    assert topics.parse(topics.device_up(site, device, channel)) == Address(
        site, "dev", device, "up", channel
    )


@pytest.mark.parametrize(
    ("topic", "address"),
    [
        (topics.device_dn("s", "d", "kernel"), Address("s", "dev", "d", "dn", "kernel")),
        (topics.client_up("s", "c"), Address("s", "client", "c", "up", "request")),
        (topics.client_up("s", "c", "blob"), Address("s", "client", "c", "up", "blob")),
        (topics.client_dn("s", "c"), Address("s", "client", "c", "dn", "answer")),
        (topics.hub_state("s", "h"), Address("s", "hub", "h", "", "state")),
        (topics.job_status("s", "j"), Address("s", "jobs", "j", "", "status")),
    ],
)
def test_the_other_topics_too(topic: str, address: Address) -> None:
    assert topics.parse(topic) == address


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "resonator/v1",
        "resonator/v2/s/dev/d/up/state",
        "resonator/v1/s/dev/d/up/kernel",
        "resonator/v1/s/dev/d/dn/result",
        "resonator/v1/s/dev/d/up/state/more",
        "resonator/v1//dev/d/up/state",
        "resonator/v1/s/dev/+/up/state",
        "resonator/v1/s/dev/d\n/up/state",
        "resonator/v1/s/dev/" + "d" * 64 + "/up/state",
        "resonator/v1/s/jobs/j/state",
        "$SYS/broker/uptime",
    ],
)
def test_what_is_no_topic_of_ours_is_refused(topic: str) -> None:
    with pytest.raises(MessageInvalid):
        topics.parse(topic)


@given(st.text(max_size=80))
def test_whatever_the_topic_only_one_kind_of_error_escapes(topic: str) -> None:
    assert outcome(topic) != ""


def outcome(topic: str) -> str:
    try:
        return topics.parse(topic).name
    except MessageInvalid as error:
        return str(error)


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "-a", "a b", "a\n", "ä", "x" * 64])
def test_names_that_would_break_a_topic_cannot_be_spelt(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(MessageInvalid):
        topics.job_status("site", name)


def heard(filters: tuple[str, ...], topic: str) -> bool:
    return any(matches(one, topic) for one in filters)


def test_each_party_hears_what_is_for_it_and_not_what_it_says_itself() -> None:
    up, dn = topics.device_up("s", "d", "result"), topics.device_dn("s", "d", "kernel")
    request, answer = topics.client_up("s", "c"), topics.client_dn("s", "c")

    assert [heard(topics.for_hub(), topic) for topic in (up, request, dn, answer)] == [
        True,
        True,
        False,
        False,
    ]
    assert [heard(topics.for_device("s", "d"), topic) for topic in (dn, up, answer)] == [True, False, False]
    assert [heard(topics.for_client("s", "c"), topic) for topic in (answer, request)] == [True, False]
    assert not heard(topics.for_device("s", "d"), topics.device_dn("s", "other", "kernel"))
    assert heard((topics.hubs(),), topics.hub_state("s", "main"))


def test_a_device_hears_its_own_presence_to_notice_a_namesake() -> None:
    assert heard(topics.for_device("s", "d"), topics.device_up("s", "d", "state"))
