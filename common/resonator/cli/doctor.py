"""`resonator doctor`: what is wrong here, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from resonator import settings
from resonator.cli import options
from resonator.cli.exits import ExitCode
from resonator.cli.output import console, print_json
from resonator.doctor import Examination, Finding, Where, examine, failed
from resonator.doctor.broker import look_at_broker
from resonator.doctor.identity import look_at_identity
from resonator.errors import InputInvalid

GROUP = "resonator.doctor"
"""Entry points of functions that say what else is to be looked at, given a `Where`."""
_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}
Parts = Callable[[Where], Sequence[Examination]]


def doctor(
    hub: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Look at the hub with this state directory.")
    ] = None,
    agent: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Look at the box with this agent's state directory.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=300, metavar="SECONDS", help="How long an answer may take.")
    ] = 5.0,
    json: options.Json = False,
    broker: options.Broker = None,
    site: options.Site = None,
    identity: options.Identity = None,
) -> None:
    """Look at broker, clock, certificates, database and disks, and say what to do; nothing is changed.

    Exit codes: 0 when nothing has failed, 1 otherwise.
    """
    try:
        chosen = settings.load(broker=broker, site=site, identity=identity)
    except InputInvalid as error:
        findings = [failed("settings", str(error), "correct what it names")]
    else:
        where = Where(chosen, timeout, hub, agent)
        findings = examine([*_of_client(where), *_of_others(where)], timeout)
    if json:
        print_json(findings)
    else:
        _print(findings)
    if any(finding.level == "failed" for finding in findings):
        raise typer.Exit(ExitCode.UNEXPECTED)


def _of_client(where: Where) -> Iterator[Examination]:
    chosen = where.settings
    look = partial(look_at_broker, chosen.broker, chosen.identity, chosen.site, insecure=chosen.insecure)
    yield Examination("broker", partial(look, timeout=where.timeout))
    if chosen.identity is not None:
        yield Examination("certificate", partial(look_at_identity, chosen.identity))


def _of_others(where: Where) -> Iterator[Examination]:
    """Ask the packages that are installed here what they have to be looked at."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            parts: Parts = entry.load()
        except ModuleNotFoundError:
            continue  # the extra of that part is not installed: it does not run here
        yield from parts(where)


def _print(findings: Sequence[Finding]) -> None:
    out = console()
    for finding in findings:
        colour = _COLOURS[finding.level]
        out.print(Text.assemble((f"{finding.level:<8}", colour), f"{finding.check:<16}{finding.says}"))
        if finding.advice:
            out.print(Text.assemble(" " * 24, ("do: ", "bold"), finding.advice))
    bad = sum(finding.level == "failed" for finding in findings)
    doubtful = sum(finding.level == "warning" for finding in findings)
    out.print(f"{len(findings)} looked at, {bad} failed, {doubtful} warned of")
