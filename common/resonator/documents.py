"""Reads YAML, and JSON with it, that anybody may have written: plain data of the size that it looks like."""

from __future__ import annotations

from typing import Any

import yaml

MAX_DEPTH = 32
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Knows plain data alone; takes no key twice, and no `<<`, by which a few lines make maps without end."""

    flow_level: int

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level == MAX_DEPTH:  # every further one costs as much as all before
            raise RecursionError
        super().fetch_flow_collection_start(token)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.tag == _MERGE:
                raise yaml.MarkedYAMLError(problem="`<<` is not accepted here", problem_mark=key.start_mark)
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in keys:
                raise yaml.MarkedYAMLError(problem="this key occurs twice", problem_mark=key.start_mark)
            keys.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep)


def load(text: str | bytes) -> Any:
    """Return what a text says; raises ValueError, in one line, for what is neither YAML nor JSON."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, ArithmeticError, TypeError) as error:
        # PyYAML lets errors of its constructors through: `2001-99-99`, `!!bool x`, `!!int ""`, `1:1:...:1.5`
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
