"""docs/federation.md, run as it is printed: a cloud and a site, and the link between them cut and mended."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import small_models
from fakes import printed, two_machines
from fakes.brokers import find_mosquitto
from resonator import bundle

CLOUD = ("cloud", "10.11.0.1", "cloud.example.org")
PLANT = ("plant", "10.11.0.2", "edge.plant.example.org")


async def test_a_site_from_nothing_as_it_is_printed(tmp_path: Path) -> None:
    find_mosquitto()
    if not (alone := printed.alone()):
        reason = "this machine allows no namespaces, of which the two machines that are printed are made"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    plant = tmp_path / PLANT[0]
    plant.mkdir()
    (plant / "model.onnx").write_bytes(small_models.perceptron())
    scripts = []
    for number, commands in enumerate(printed.blocks("federation.md")):
        scripts.append(tmp_path / f"{number}.sh")
        scripts[-1].write_text(commands)
    program = [sys.executable, two_machines.__file__, str(tmp_path), *CLOUD, *PLANT, *map(str, scripts)]
    said = await printed.run([*alone, *program], tmp_path)
    assert bundle.read(plant / "tuned.bundle")[0].name == "model", said
    assert "unknown" in said, "the box, while the link was cut"
    assert printed.refusals(said) == []
    assert "has no TLS" not in said
