"""The process of the simulated agents: `python -m load.fleet HOST PORT COUNT LEAST_S MOST_S RESULTS`.

Once a second it prints what they have done so far as a line of JSON; SIGUSR1 has it forget how long they
waited. At SIGTERM it writes what they have measured into the file RESULTS, a line each, and ends.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from load.agent import KEEPALIVE_S, Agent, Plan, Tally
from load.gauges import allow_sockets, print_each_second, quantiles
from resonator.cli import logs
from resonator.settings import DEFAULT_SITE

_TICK_S = 0.5


async def main(plan: Plan, count: int) -> Tally:
    """Live until SIGTERM; return what was done."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    tally = Tally()
    loop.add_signal_handler(signal.SIGUSR1, tally.forget_waits)
    agents = [Agent(number, plan, tally) for number in range(count)]
    for agent in agents:
        agent.dial()
    telling = asyncio.create_task(print_each_second(lambda: told(tally)))
    tending = asyncio.create_task(tend(agents))
    await stop.wait()
    telling.cancel()
    tending.cancel()
    return tally


async def tend(agents: list[Agent]) -> None:
    """Let every agent do what is due: once a second or so, and its pings in time."""
    loop = asyncio.get_running_loop()
    turn, pings = 0, max(1, int(KEEPALIVE_S / 2 / _TICK_S))
    while True:
        await asyncio.sleep(_TICK_S)
        turn += 1
        now = loop.time()
        for agent in agents[turn % 2 :: 2]:
            agent.tick(now)
        for agent in agents[turn % pings :: pings]:
            agent.ping()


def told(tally: Tally) -> dict[str, object]:
    """Return what is worth telling; waits in seconds as `[count, p50, p99, longest]`."""
    waits = {
        "next_kernel": tally.next_kernel_s,
        "next_window": tally.next_window_s,
        "acknowledged": tally.acknowledged_s,
        "idle": tally.idle_s,
    }
    return {
        "connected": tally.connected,
        "last_connected_at": tally.last_connected_at,
        "said": dict(tally.said),
        "heard": dict(tally.heard),
        "results": len(tally.results),
        "unacknowledged": tally.unacknowledged,
        "busy_s": tally.busy_s,
        "waits": {name: quantiles(values) for name, values in waits.items()},
    }


if __name__ == "__main__":
    host, port, count, least_s, most_s, results = sys.argv[1:]
    allow_sockets()
    logs.configure()
    plan = Plan(host, int(port), DEFAULT_SITE, (float(least_s), float(most_s)))
    done = asyncio.run(main(plan, int(count)))
    Path(results).write_text("".join(f"{line}\n" for line in done.results))
