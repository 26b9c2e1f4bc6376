"""Topic names and topic filters: which are valid, and which match."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

_MOST_BYTES = 65535


def valid_topic(topic: str) -> bool:
    """Whether `topic` may be published to: not empty, no wildcard, no NUL."""
    return bool(topic) and not any(sign in topic for sign in "+#\0") and _fits(topic)


def valid_filter(pattern: str) -> bool:
    """Whether `pattern` may be subscribed to: `+` fills a whole level, `#` only the last."""
    if not pattern or "\0" in pattern or not _fits(pattern):
        return False
    levels = pattern.split("/")
    if any("+" in level and level != "+" for level in levels):
        return False
    return "#" not in "/".join(levels[:-1]) and (levels[-1] == "#" or "#" not in levels[-1])


def _fits(text: str) -> bool:
    return len(text) <= _MOST_BYTES and len(text.encode()) <= _MOST_BYTES


def matches(pattern: str, topic: str) -> bool:
    """Whether the filter `pattern` takes in `topic`; wildcards do not reach into `$` topics."""
    if topic.startswith("$") and pattern[:1] in ("+", "#"):
        return False
    wanted, given = pattern.split("/"), topic.split("/")
    for position, level in enumerate(wanted):
        if level == "#":
            return True
        if position >= len(given) or level not in ("+", given[position]):
            return False
    return len(wanted) == len(given)


@dataclass
class _Node(Generic[T]):
    children: dict[str, _Node[T]] = field(default_factory=dict)
    holders: dict[str, T] = field(default_factory=dict)


class SubscriptionTree(Generic[T]):
    """Who subscribed to what: finds the holders of all filters that match a topic without trying each."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, pattern: str, holder: str, grant: T) -> None:
        """Note that `holder` subscribes to `pattern`; a second time replaces the grant."""
        node = self._root
        for level in pattern.split("/"):
            node = node.children.setdefault(level, _Node())
        node.holders[holder] = grant

    def remove(self, pattern: str, holder: str) -> None:
        """Forget it, and the branches that nobody needs any more."""
        path = [self._root]
        levels = pattern.split("/")
        for level in levels:
            path.append(path[-1].children[level])
        del path[-1].holders[holder]
        for parent, level, node in zip(path[-2::-1], levels[::-1], path[:0:-1], strict=True):
            if node.holders or node.children:
                break
            del parent.children[level]

    def match(self, topic: str) -> Iterator[tuple[str, T]]:
        """Yield (holder, grant) for each filter that matches `topic`."""
        levels = topic.split("/")
        nodes = [self._root]
        for position, level in enumerate(levels):
            wild = not (position == 0 and level.startswith("$"))
            following = []
            for node in nodes:
                if wild and (rest := node.children.get("#")):
                    yield from rest.holders.items()
                if child := node.children.get(level):
                    following.append(child)
                if wild and (child := node.children.get("+")):
                    following.append(child)
            nodes = following
        for node in nodes:
            yield from node.holders.items()
            if rest := node.children.get("#"):  # `a/#` matches `a` too
                yield from rest.holders.items()
