import pytest
from hypothesis import given
from hypothesis import strategies as st

from resonator_hub.broker.filters import SubscriptionTree, matches, valid_filter, valid_topic


@pytest.mark.parametrize("topic", ["a", "a/b", "/", "a//b", " ", "$SYS/x", "ä/ö", "x" * 65535])
def test_topics_that_may_be_published_to(topic: str) -> None:
    assert valid_topic(topic)


@pytest.mark.parametrize("topic", ["", "#", "a/+", "a+", "a#b", "a\0b", "x" * 65536, "ä" * 40000])
def test_topics_that_may_not(topic: str) -> None:
    assert not valid_topic(topic)


@pytest.mark.parametrize("pattern", ["#", "+", "a/#", "+/a/+", "/", "+/+/#", "/#", "a"])
def test_filters_that_may_be_subscribed_to(pattern: str) -> None:
    assert valid_filter(pattern)


@pytest.mark.parametrize(
    "pattern", ["", "a#", "#/a", "a/#/b", "a+", "+a/b", "a/b+", "##", "a\0", "x" * 65536]
)
def test_filters_that_may_not(pattern: str) -> None:
    assert not valid_filter(pattern)


MATCHES = [
    ("a/b", "a/b", True),
    ("a/b", "a/b/c", False),
    ("a/b/c", "a/b", False),
    ("a/+", "a/b", True),
    ("a/+", "a", False),
    ("a/+", "a/", True),
    ("a/+/c", "a/b/c", True),
    ("+", "a", True),
    ("+", "/a", False),
    ("+/+", "/a", True),
    ("a/#", "a", True),
    ("a/#", "a/b/c", True),
    ("#", "a/b", True),
    ("#", "$SYS/a", False),
    ("+/a", "$SYS/a", False),
    ("$SYS/#", "$SYS/a", True),
    ("a/$x", "a/$x", True),
    ("a/+", "a/$x", True),
]


@pytest.mark.parametrize(("pattern", "topic", "expected"), MATCHES)
def test_what_a_filter_takes_in(pattern: str, topic: str, expected: bool) -> None:
    tree: SubscriptionTree[int] = SubscriptionTree()
    tree.add(pattern, "me", 1)

    assert matches(pattern, topic) is expected
    assert list(tree.match(topic)) == ([("me", 1)] if expected else [])


levels = st.lists(st.sampled_from(["a", "b", "", "$c", "+"]), min_size=1, max_size=4)
patterns = st.builds(lambda parts, rest: "/".join(parts + rest), levels, st.sampled_from([[], ["#"]])).filter(
    valid_filter
)
topics = levels.map("/".join).filter(valid_topic)


@given(st.lists(patterns, max_size=8), topics)
def test_the_tree_finds_what_trying_each_filter_finds(names: list[str], topic: str) -> None:
    tree: SubscriptionTree[str] = SubscriptionTree()
    for name in names:
        tree.add(name, "me", name)

    assert sorted(grant for _, grant in tree.match(topic)) == sorted(
        name for name in set(names) if matches(name, topic)
    )


@given(st.lists(patterns, max_size=8, unique=True))
def test_a_tree_from_which_all_was_removed_is_empty(names: list[str]) -> None:
    tree: SubscriptionTree[int] = SubscriptionTree()
    for name in names:
        tree.add(name, "me", 1)
    for name in names:
        tree.remove(name, "me")

    assert not tree._root.children
