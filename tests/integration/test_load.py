"""The benchmark of many agents, small: fifty on real sockets, a broker killed, every result counted.

What is measured is not looked at; only what was lost, or came twice.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from fakes.brokers import find_mosquitto

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import bench_load
from load.scene import Load, open_scene, submit

FEW = Load(agents=50, jobs=5, tasks=20, kernel_s=(0.1, 0.4))


def test_fifty_agents_lose_nothing_when_their_broker_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a hub that knows fifty boxes, which have begun to measure
    monkeypatch.setattr(bench_load, "DOWN_S", 0.0)
    with open_scene(FEW, find_mosquitto()) as scene:
        bench_load.register(scene)
        asyncio.run(submit(scene))
        scene.wait(lambda _, agents: agents["results"] >= 50)
        # When Mosquitto is killed, comes back, and they go on
        bench_load.storm(scene)
        before = scene.told()["results"]
        scene.wait(lambda _, agents: agents["results"] >= before + 50)
        bench_load.settle(scene)
        counts = {figure.name: figure for figure in bench_load.lost(scene)}
    # Then what they have measured is what the hub has counted, once each
    assert counts["measured"].value >= 100
    assert counts["counted that nobody measured, or twice"].met
    assert counts["measured, but neither counted nor refused"].met
