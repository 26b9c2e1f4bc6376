"""Turns: what one sender says stays in order, and keeps nobody else waiting."""

from __future__ import annotations

import asyncio

from resonator.bus.turns import Turns


async def test_attack_by_flood_a_sender_that_says_much_waits_behind_itself_alone() -> None:
    turns: Turns[str] = Turns()
    for number in range(1000):
        turns.put("loud", f"loud {number}")
    for number in range(3):
        turns.put("quiet", f"quiet {number}")
    taken = [await turns.take() for _ in range(6)]
    assert taken == ["loud 0", "quiet 0", "loud 1", "quiet 1", "loud 2", "quiet 2"]
    assert (turns.waiting("loud"), turns.waiting("quiet")) == (997, 0)


async def test_who_waits_is_woken_by_what_comes_and_by_the_end() -> None:
    turns: Turns[str] = Turns()
    taking = asyncio.ensure_future(turns.take())
    await asyncio.sleep(0)
    turns.put("one", "said")
    assert await asyncio.wait_for(taking, 5) == "said"
    taking = asyncio.ensure_future(turns.take())
    await asyncio.sleep(0)
    turns.put("one", "last")
    turns.close()
    assert await asyncio.wait_for(taking, 5) == "last"
    assert await asyncio.wait_for(turns.take(), 5) is None
