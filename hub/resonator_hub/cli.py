"""The hub's verbs of the `resonator` command."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from resonator.cli import logs
from resonator.cli.options import Insecure, Json, JsonLog
from resonator_hub import audit as deeds
from resonator_hub import replay as journals
from resonator_hub import settings

Journal = Annotated[
    str, typer.Argument(metavar="JOURNAL", help="A hub's state directory, its hub.db, or its database's URL.")
]


def hub(
    broker: Annotated[
        str | None,
        typer.Option(metavar="URL|embedded", help="The broker's address, or one of our own on loopback."),
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="The embedded broker's port.")] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where journal, records and blobs are kept.")
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A database to be shared by hubs [RESONATOR_DATABASE_URL]."),
    ] = None,
    site: Annotated[str | None, typer.Option(metavar="SITE", help="The hub's site [RESONATOR_SITE].")] = None,
    identity: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The hub's key and certificate, for a broker of mqtts://."),
    ] = None,
    insecure: Insecure = False,
    ca: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The fleet's authority: enrol boxes, and renew their certificates."),
    ] = None,
    door: Annotated[
        int | None, typer.Option(min=0, max=65535, help="With --ca: the port at which boxes enrol.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="NAME", help="sequential, greedy, fair or load_aware.")
    ] = None,
    cores: Annotated[
        str | None, typer.Option(metavar="0,2", help="The cores that the hub and its workers use.")
    ] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Compute slots; one a core by default.")] = None,
    compute: Annotated[
        str | None,
        typer.Option(
            metavar="local|dask://HOST:PORT", help="Where stages run: here, or on a Dask cluster [local]."
        ),
    ] = None,
    blobs: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URL", help="Where models, kernels and bundles are kept; in --state by default."
        ),
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT", help="Serve /metrics, /healthz and /readyz here; nowhere by default."
        ),
    ] = None,
    json: JsonLog = False,
) -> None:
    """Run a hub: take in jobs and tune them on the fleet, until Ctrl-C."""
    from resonator_hub import bootstrap  # here, because `replay` need not wait for it

    logs.configure("info", json=json)
    chosen = settings.load(
        broker=broker,
        port=port,
        state=state,
        database_url=database,
        site=site,
        identity=identity,
        insecure=insecure or None,
        ca=ca,
        door=door,
        policy=policy,
        cores=cores,
        slots=slots,
        compute=compute,
        blobs=blobs,
        status=status,
    )
    logs.configure(chosen.log_level, json=json)

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def stopped(number: signal.Signals) -> None:
            stop.set()
            loop.remove_signal_handler(number)  # asked a second time, at once

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped, number)
        await bootstrap.run(chosen, stop)

    asyncio.run(run())


def replay(
    journal: Journal,
    job: Annotated[str | None, typer.Option(metavar="ID", help="Tell a job's story.")] = None,
    device: Annotated[str | None, typer.Option(metavar="SITE/NAME", help="Tell a device's story.")] = None,
    task: Annotated[str | None, typer.Option(metavar="ID", help="Tell a task's story.")] = None,
    as_json: Json = False,
) -> None:
    """Fold a hub's journal and tell the story of a job, task or device; without one, list what is in it."""
    folded = journals.fold(journal)
    wanted = [entity for entity in (job, device, task) if entity is not None]
    if wanted:
        journals.print_stories([folded.story(entity) for entity in wanted], as_json=as_json)
    else:
        journals.print_overview(folded, as_json=as_json)


def audit(
    journal: Journal,
    who: Annotated[str | None, typer.Option(metavar="NAME", help="What one person did, or box.")] = None,
    since: Annotated[str | None, typer.Option(metavar="2h|2026-11-21", help="From when on.")] = None,
    as_json: Json = False,
) -> None:
    """Tell who submitted, canceled, fetched, drained, enrolled and revoked what, from a hub's journal."""
    begin = 0.0 if since is None else deeds.moment(since, time.time())
    deeds.print_entries(deeds.entries(journal, who=who, since=begin), as_json=as_json)
