"""What happened to each job, task, round, candidate and device, in a few lines each."""

from __future__ import annotations

from collections import OrderedDict, deque


class Stories:
    """The last lines about the entities touched last; older ones make room."""

    __slots__ = ("_entities", "_lines", "_told")

    def __init__(self, entities: int, lines: int) -> None:
        self._entities = entities
        self._lines = lines
        self._told: OrderedDict[str, deque[tuple[float, str, str]]] = OrderedDict()

    def tell(self, entity: str, at: float, cause: str, outcome: str) -> None:
        """Add a line; it is put into words only when somebody asks."""
        lines = self._told.get(entity)
        if lines is None:
            lines = self._told[entity] = deque(maxlen=self._lines)
            if len(self._told) > self._entities:
                self._told.popitem(last=False)
        else:
            self._told.move_to_end(entity)
        lines.append((at, cause, outcome))

    def of(self, entity: str) -> list[str]:
        """Return the lines about an entity, oldest first; none when it is unknown or long ago."""
        return [f"{at:.3f} {cause}: {outcome}" for at, cause, outcome in self._told.get(entity, ())]
