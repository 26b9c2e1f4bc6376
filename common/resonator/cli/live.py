"""Watching a job: a live picture on a terminal, lines elsewhere, JSON for machines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from rich.console import Console
from rich.live import Live

from resonator.cli import output
from resonator.cli.exits import say
from resonator.cli.output import duration, latency, print_json
from resonator.cli.pictures import doing, job_picture
from resonator.messages import JobStatus

_STEPS = 20
"""A line is printed each time this share of the budget has been spent, and whenever the phase changes."""


class Followable(Protocol):
    """Whoever can follow a job."""

    def follow(self, job: str) -> AsyncIterator[JobStatus]:
        """Yield a job's status now and at each change, until it has ended."""


async def watch(client: Followable, job: str, *, json: bool, console: Console | None = None) -> JobStatus:
    """Show a job as `show` does; interrupted, say that the job goes on."""
    try:
        return await show(client, job, json=json, console=console)
    except asyncio.CancelledError:
        say(f"job {job} goes on; `resonator watch {job}` follows it, `resonator cancel {job}` ends it")
        raise


async def show(client: Followable, job: str, *, json: bool, console: Console | None = None) -> JobStatus:
    """Show a job until it has ended and return its last status."""
    console = console or output.console()
    if json:
        return await _as_json(client, job)
    if console.is_terminal:
        return await _as_picture(client, job, console)
    return await _as_lines(client, job, console)


async def _as_json(client: Followable, job: str) -> JobStatus:
    async for status in client.follow(job):
        print_json(status)
    return status


async def _as_picture(client: Followable, job: str, console: Console) -> JobStatus:
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        async for status in client.follow(job):
            room = console.height - 14 - len(status.activities)
            live.update(job_picture(status, most_tasks=max(3, room)), refresh=True)
    return status


async def _as_lines(client: Followable, job: str, console: Console) -> JobStatus:
    said = None
    async for status in client.follow(job):
        step = status.trials * _STEPS // max(status.budget, 1)
        news = (status.state, status.phase, status.waiting_for, step)
        if news != said:
            console.print(line(status), highlight=False, markup=False, soft_wrap=True)
            said = news
    return status


def line(status: JobStatus) -> str:
    """Say in one line how far a job is."""
    parts = [f"{duration(status.elapsed):>12}", status.job, status.state.value]
    if what := doing(status):
        parts.append(what)
    if status.budget:
        parts.append(f"{status.trials}/{status.budget} trials")
    if status.estimate is not None:
        parts.append(f"best so far {latency(status.estimate)}")
    parts += [f"untuned {latency(status.untuned.median)}"] if status.untuned else []
    parts += [f"tuned {latency(status.tuned.median)}"] if status.tuned else []
    return "  ".join(parts)
