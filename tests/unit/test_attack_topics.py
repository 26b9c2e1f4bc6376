"""Topics that nobody spells: what is read is what would be spelled, everything else is none of ours."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resonator.bus import topics
from resonator.bus.topics import Address, parse
from resonator.errors import MessageInvalid
from resonator.ids import NAME_PATTERN

NAMES = st.from_regex(NAME_PATTERN, fullmatch=True).filter(lambda name: not name.endswith("\n"))
SPELLED = st.one_of(
    st.builds(topics.device_up, NAMES, NAMES, st.sampled_from(topics.DEVICE_UP)),
    st.builds(topics.device_dn, NAMES, NAMES, st.sampled_from(topics.DEVICE_DN)),
    st.builds(topics.client_up, NAMES, NAMES, st.sampled_from(topics.CLIENT_UP)),
    st.builds(topics.client_dn, NAMES, NAMES, st.sampled_from(topics.CLIENT_DN)),
    st.builds(topics.hub_state, NAMES, NAMES),
    st.builds(topics.job_status, NAMES, NAMES),
)


def spelled(address: Address) -> str:
    parts = (topics.ROOT, address.site, address.kind, address.name, address.direction, address.channel)
    return "/".join(part for part in parts if part)


def heard(topic: str) -> None:
    """Read a topic: it is spelled as it is read, or refused in a sentence."""
    try:
        address = parse(topic)
    except MessageInvalid as error:
        said = str(error)
        assert len(said) < 1000
        assert said.isprintable()
    else:
        assert spelled(address) == topic


@given(SPELLED)
@settings(max_examples=200)
def test_attack_free_topics_are_read_as_spelled(topic: str) -> None:
    assert spelled(parse(topic)) == topic


@given(SPELLED, st.integers(0, 300), st.characters() | st.sampled_from("/+#$\0\n .-"))
@settings(max_examples=300)
def test_attack_by_a_changed_sign(topic: str, place: int, sign: str) -> None:
    place %= len(topic)
    heard(topic[:place] + sign + topic[place + 1 :])
    heard(topic[:place] + sign + topic[place:])


@given(st.text(max_size=300) | st.lists(SPELLED | st.text(max_size=5), max_size=6).map("/".join))
@settings(max_examples=300)
def test_attack_by_any_text_for_a_topic(topic: str) -> None:
    heard(topic)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "/",
        topics.ROOT,
        f"{topics.ROOT}/",
        f"{topics.ROOT}/+/dev/+/up/state",
        f"{topics.ROOT}/#",
        f"{topics.ROOT}/s/dev/../up/state",
        f"{topics.ROOT}/s/dev//up/state",
        f"{topics.ROOT}/s/dev/box/up/state/",
        f"{topics.ROOT}/s/dev/box/up/state\n",
        f"{topics.ROOT}/s/dev/box\n/up/state",
        f"{topics.ROOT}/s/dev/box\0/up/state",
        f"{topics.ROOT}/s/dev/böx/up/state",
        f"{topics.ROOT}/s/dev/{'x' * 64}/up/state",
        f"{topics.ROOT}/s/dev/box/dn/state",
        f"{topics.ROOT}/s/dev/box/up/kernel",
        f"{topics.ROOT}/s/hub/main/up/state",
        f"$share/x/{topics.ROOT}/s/dev/box/up/state",
        "resonator/v2/s/dev/box/up/state",
        "x" * 70_000,
        "\ud800",
    ],
)
def test_attack_by_topics_of_nobody(topic: str) -> None:
    with pytest.raises(MessageInvalid):
        parse(topic)
    heard(topic)


@pytest.mark.parametrize("name", ["", "+", "#", "a/b", "..", "a\n", "x" * 64, "a b"])
def test_attack_by_a_name_that_would_be_another_topic(name: str) -> None:
    for spell in (topics.hub_state, topics.job_status, topics.client_dn, topics.client_up):
        with pytest.raises(MessageInvalid):
            spell("lab", name)
        with pytest.raises(MessageInvalid):
            spell(name, "box")
