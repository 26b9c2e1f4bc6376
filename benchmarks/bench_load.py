"""2,000 simulated agents, each on a TCP connection of its own, at one hub and one Mosquitto of this machine.

The agents speak with the real codec and the agent's real state machine; their boxes only wait, 5 to 14 s a
kernel unless KERNEL_S=LEAST,MOST says otherwise. The hub is the real one but for its compute, which takes no
time. First the fleet registers, then jobs keep half of it busy, then Mosquitto is killed and started again;
at the end every result is looked for in the hub's journal. AGENTS=N runs another number of agents,
QUICK=1 200 of them for seconds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from dataclasses import replace

from figures import Figure, keep, quick
from load.gauges import allow_sockets
from load.scene import Load, Scene, cancel_all, open_scene, submit

QUICK = Load(agents=200, jobs=10, tasks=20, kernel_s=(0.4, 2.0), warm_s=2.0, steady_s=8.0)
REFUSED = ("of no job here", "of another window", "of a kernel not given", "measured before")
"""Why a hub acknowledges a result without counting it."""
DOWN_S = 5.0
"""How long the broker is away."""


def main() -> None:
    allow_sockets()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("asked to end"))
    load = QUICK if quick() else Load()
    if given := os.environ.get("KERNEL_S"):
        least_s, most_s = map(float, given.split(","))
        load = replace(load, kernel_s=(least_s, most_s))
    if given := os.environ.get("AGENTS"):
        load = replace(load, agents=int(given))
    with open_scene(load) as scene:
        figures = register(scene)
        figures += steady(scene)
        figures += storm(scene)
        figures += settle(scene)
        figures += lost(scene)
    if "AGENTS" not in os.environ and "KERNEL_S" not in os.environ:
        keep("load", figures)
    else:
        sys.stdout.writelines(f"{one.name:66} {one.value:10.4g} {one.unit}\n" for one in figures)


def register(scene: Scene) -> list[Figure]:
    """Have all agents dial at once, and wait until the hub knows all of them as idle."""
    agents, began = scene.load.agents, time.monotonic()
    scene.start_agents()
    scene.wait(lambda hub, _: hub["devices"].get("idle", 0) >= agents)
    took_s = scene.hub.latest["last_state"] - began
    idle = scene.taken()
    return [
        Figure("agents", agents, ""),
        Figure(
            "all start at once: the hub knows the last one",
            took_s,
            "s",
            note="3 s of it each asks for its name",
        ),
        Figure("hub, all idle: memory", idle["hub"].resident_mb, "MB"),
        Figure("Mosquitto, all idle: memory", idle["Mosquitto"].resident_mb, "MB"),
    ]


def steady(scene: Scene) -> list[Figure]:
    """Give the fleet jobs, and watch it at work."""
    asyncio.run(submit(scene))
    time.sleep(scene.load.warm_s)
    scene.forget_waits()
    was, hub_was, agents_was = scene.taken(), scene.hub.next(), scene.told()
    time.sleep(scene.load.steady_s)
    now, hub, agents = scene.taken(), scene.hub.next(), scene.told()
    took_s = agents["at"] - agents_was["at"]

    def rate(after: float, before: float) -> float:
        return (after - before) / took_s

    def each(now: dict[str, int], before: dict[str, int]) -> float:
        return rate(sum(now.values()), sum(before.values()))

    results = rate(agents["results"], agents_was["results"])
    received, sent = each(hub["received"], hub_was["received"]), each(hub["sent"], hub_was["sent"])
    figures = [
        Figure("results", results, "1/s"),
        Figure("boxes at work", rate(agents["busy_s"], agents_was["busy_s"]), ""),
        Figure("hub: messages in", received, "1/s"),
        Figure("hub: messages out", sent, "1/s"),
        Figure(
            "through Mosquitto", 2 * (received + sent), "1/s", note="in and out, acknowledgements not counted"
        ),
    ]
    for name, key in (
        ("result to next kernel, same window", "next_kernel"),
        ("result to next kernel, next window", "next_window"),
        ("result to acknowledgement", "acknowledged"),
        ("box idle between two kernels", "idle"),
    ):
        _, median, most, _ = agents["waits"][key]
        figures += [Figure(f"{name}: p50", median * 1e3, "ms"), Figure(f"{name}: p99", most * 1e3, "ms")]
    for name in ("hub", "Mosquitto", "agents"):
        busy = rate(now[name].cpu_s, was[name].cpu_s)
        figures += [
            Figure(f"{name}: processor", 100 * busy, "% of a core"),
            Figure(f"{name}: memory", now[name].resident_mb, "MB"),
        ]
    print(hub, agents, flush=True)
    return [
        *figures,
        Figure(
            "hub: processor for each result", 1e3 * rate(now["hub"].cpu_s, was["hub"].cpu_s) / results, "ms"
        ),
    ]


def storm(scene: Scene) -> list[Figure]:
    """Kill the broker, start it again, and wait until the hub has heard of all boxes, and they of it."""
    scene.broker.kill()
    scene.broker.wait()
    time.sleep(DOWN_S)
    scene.start_broker()
    began, was = time.monotonic(), scene.told()
    agents = scene.load.agents
    scene.wait(lambda hub, fleet: hub["connected_at"] > began and fleet["connected"] == agents)
    scene.wait(lambda hub, _: hub["states"] >= agents)
    hub, fleet = scene.hub.latest, scene.agents.latest
    all_s = max(hub["last_state"], fleet["last_connected_at"]) - began
    said = sum(scene.told()["said"].values()) - sum(was["said"].values())
    back = "Mosquitto killed and back"
    return [
        Figure(f"{back}: the hub is connected", hub["connected_at"] - began, "s"),
        Figure(f"{back}: the last agent is connected", fleet["last_connected_at"] - began, "s"),
        Figure(f"{back}: and the hub has heard of all boxes", all_s, "s"),
        Figure(f"{back}: what boxes say until then", said / all_s, "1/s"),
    ]


def settle(scene: Scene) -> list[Figure]:
    """End all jobs, and wait until everything that was measured is acknowledged."""
    began = time.monotonic()
    asyncio.run(cancel_all(scene))
    scene.wait(
        lambda hub, fleet: fleet["unacknowledged"] == 0 and hub["devices"].get("idle") == scene.load.agents
    )
    return [Figure("jobs canceled: nothing waits any more", time.monotonic() - began, "s")]


def lost(scene: Scene) -> list[Figure]:
    """Compare what was measured with what the hub has counted."""
    measured = scene.measured()
    refused = scene.hub.end()["refused"]
    told_so = sum(refused.get(why, 0) for why in REFUSED)
    counted = scene.journalled()
    twice = sum(number - 1 for number in counted.values())
    unheard = (measured - counted).total()
    database, blobs = scene.kept_bytes()
    print(f"refused: {refused}, measured but not counted: {list(measured - counted)[:5]}", flush=True)
    note = f"{unheard} were acknowledged without being counted: their windows or jobs were over"
    return [
        Figure("measured", measured.total(), "", note=note),
        Figure("counted that nobody measured, or twice", twice + (counted - measured).total(), "", 0),
        Figure("measured, but neither counted nor refused", max(0, unheard - told_so), "", 0),
        Figure("database for each result", database / counted.total(), "bytes"),
        Figure("blobs for each result", blobs / counted.total(), "bytes"),
    ]


if __name__ == "__main__":
    main()
