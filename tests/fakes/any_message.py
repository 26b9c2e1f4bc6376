"""A message of any type, with whatever its fields accept: made from the models, so that it knows new ones."""

from __future__ import annotations

import contextlib
import enum
import re
import string
from random import Random
from typing import Any

from pydantic import BaseModel, ValidationError

from resonator.messages import TYPES, Message

MOST_ITEMS = 4
TEXTS = ("a", "box-1", "m-1/t0/c3", "ab" * 32, "float32", "ü", "", "5", "{}", "x" * 63, "\0\n\x1b[2J", "🛰")
_SIGNS = string.ascii_letters + string.digits + "._-/:# \0\n\x7fé\u2028🛰"
_FLOATS = (0.0, 1e-9, 0.5, 1.0, 3.0, 1e6, 1e300, 5e-324, float("inf"))
_TRIES = 200


def any_message(random: Random, wire: str | None = None) -> Message:
    """Return a valid message, of the type `wire` if one is named."""
    kind = TYPES[wire or random.choice(sorted(TYPES))]
    message = _instance(kind, random)
    assert isinstance(message, Message)
    return message


def _instance(kind: type[BaseModel], random: Random) -> BaseModel:
    """Return a model of valid fields; what only a validator knows is found by trying."""
    for _ in range(_TRIES):
        with contextlib.suppress(ValidationError):
            return kind.model_validate(_value(kind.__pydantic_core_schema__, random, {}))
    raise AssertionError(f"no valid {kind.__name__} in {_TRIES} tries")


def _value(schema: Any, random: Random, known: dict[str, Any]) -> Any:
    """Return a value for pydantic's description of a field, or of a whole model."""
    match schema["type"]:
        case "definitions":
            known = {**known, **{one["ref"]: one for one in schema["definitions"]}}
            return _value(schema["schema"], random, known)
        case "definition-ref":
            return _value(known[schema["schema_ref"]], random, known)
        case "default" | "function-after" | "function-before" | "function-wrap" | "model":
            return _value(schema["schema"], random, known)
        case "model-fields":
            return {
                field.get("validation_alias") or name: _value(field["schema"], random, known)
                for name, field in schema["fields"].items()
                if field["schema"]["type"] != "default" or random.random() < 0.6
            }
        case "nullable":
            return None if random.random() < 0.3 else _value(schema["schema"], random, known)
        case "tuple":
            return tuple(
                _value(schema["items_schema"][0], random, known) for _ in range(_count(schema, random))
            )
        case "dict":
            keys, values = schema["keys_schema"], schema["values_schema"]
            pairs = range(_count(schema, random))
            return {_value(keys, random, known): _value(values, random, known) for _ in pairs}
        case "literal":
            return random.choice(schema["expected"])
        case "enum":
            chosen: enum.Enum = random.choice(schema["members"])
            return chosen.value
        case kind:
            return _scalar(kind, schema, random)


def _scalar(kind: str, schema: Any, random: Random) -> Any:
    match kind:
        case "bool":
            return random.random() < 0.5
        case "int":
            return _int(schema, random)
        case "float":
            return _float(schema, random)
        case "str":
            return _text(schema, random)
        case "bytes":
            return random.randbytes(_count(schema, random, most=300))
    raise AssertionError(f"no value for {schema}")


def _count(schema: Any, random: Random, most: int = MOST_ITEMS) -> int:
    least = schema.get("min_length") or 0
    return random.randint(least, max(least, min(most, schema.get("max_length") or most)))


def _int(schema: Any, random: Random) -> int:
    low = schema["gt"] + 1 if "gt" in schema else schema.get("ge", -(2**63))
    high = schema["lt"] - 1 if "lt" in schema else schema.get("le", 2**63 - 1)
    return random.choice((low, high, random.randint(low, high), random.randint(low, min(high, low + 100))))


def _float(schema: Any, random: Random) -> float:
    low, high = schema.get("gt", schema.get("ge", -1e300)), schema.get("le", 1e300)
    drawn = random.choice((*_FLOATS, low, high, random.uniform(low, high), random.uniform(low, low + 1.0)))
    return float(drawn)


def _text(schema: Any, random: Random) -> str:
    if (pattern := schema.get("pattern")) is not None:
        fitting = [text for text in TEXTS if re.fullmatch(pattern, text)]
        return random.choice(fitting)
    length = _count(schema, random, most=20)
    drawn = "".join(random.choice(_SIGNS) for _ in range(length))
    return random.choice((drawn, random.choice([text for text in TEXTS if len(text) >= (length > 0)])))
