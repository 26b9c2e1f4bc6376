"""What deploy/ derives from the code is what the code says now; `make schemas` renews it."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from resonator import asyncapi, jobspec
from resonator.bus import topics
from resonator.messages import TYPES

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_the_schema_of_a_job_is_up_to_date() -> None:
    assert json.loads((DEPLOY / "job.schema.json").read_text()) == jobspec.json_schema()


def test_the_description_of_the_bus_is_up_to_date() -> None:
    assert (DEPLOY / "asyncapi.yaml").read_text() == asyncapi.text()
    assert yaml.safe_load(asyncapi.text()) == asyncapi.document()


def test_every_message_has_a_channel_and_every_channel_is_a_topic() -> None:
    assert {wire for channel in asyncapi.CHANNELS for wire in channel.messages} == set(TYPES)
    for channel in asyncapi.document()["channels"].values():
        names = dict.fromkeys(channel["parameters"], "x")
        assert topics.parse(channel["address"].format(**names)).site == "x"


def test_every_reference_leads_somewhere() -> None:
    document = asyncapi.document()

    for reference in references(document):
        found = document
        for key in reference.removeprefix("#/").split("/"):
            found = found[key]
        assert found


def references(value: object) -> list[str]:
    if isinstance(value, list):
        return [found for item in value for found in references(item)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    return own + [found for item in value.values() for found in references(item)]
