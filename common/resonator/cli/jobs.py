"""`resonator jobs`, `job`, `watch`, `cancel` and `fetch`: what becomes of jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resonator.cli import options
from resonator.cli.connect import with_client
from resonator.cli.costs import costs_table
from resonator.cli.exits import ExitCode, outcome, say
from resonator.cli.live import line
from resonator.cli.live import watch as watch_job
from resonator.cli.output import check_place, console, print_json
from resonator.cli.pictures import job_picture, jobs_table
from resonator.client import Client


def jobs(
    json: options.Json = False,
    broker: options.Broker = None,
    site: options.Site = None,
    identity: options.Identity = None,
) -> None:
    """List the hub's jobs, newest first."""
    statuses = with_client(broker, site, identity, lambda client: client.jobs())
    if json:
        print_json(statuses)
    else:
        console().print(jobs_table(statuses))


def job(
    job: options.JobArgument,
    json: options.Json = False,
    broker: options.Broker = None,
    site: options.Site = None,
    identity: options.Identity = None,
) -> None:
    """Show one job, and what it has cost."""
    status = with_client(broker, site, identity, lambda client: client.job(job))
    if json:
        print_json(status)
    else:
        console().print(job_picture(status))
        if status.costs:
            console().print(costs_table(status.costs))


def watch(
    job: options.JobArgument,
    json: options.Json = False,
    broker: options.Broker = None,
    site: options.Site = None,
    identity: options.Identity = None,
) -> None:
    """Follow a job until it has ended; the exit code says how."""

    async def use(client: Client) -> ExitCode:
        found = await client.job(job)
        return outcome((await watch_job(client, found.job, json=json)).state)

    raise typer.Exit(with_client(broker, site, identity, use))


def cancel(
    job: options.JobArgument,
    json: options.Json = False,
    broker: options.Broker = None,
    site: options.Site = None,
    identity: options.Identity = None,
) -> None:
    """End a job; what it measured is kept."""
    status = with_client(broker, site, identity, lambda client: client.cancel(job))
    if json:
        print_json(status)
    else:
        print(line(status).lstrip())


def fetch(
    job: options.JobArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="Where to write it.")],
    json: options.Json = False,
    broker: options.Broker = None,
    site: options.Site = None,
    identity: options.Identity = None,
) -> None:
    """Write the bundle of a job that succeeded to a file."""
    check_place(output)
    status = with_client(broker, site, identity, lambda client: client.fetch(job, output))
    if json:
        print_json({"job": status.job, "bundle": str(output)})
    else:
        say(f"bundle of {status.job} written to {output}")
