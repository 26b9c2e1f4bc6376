"""Verbs that other packages add to the command, loaded only when they are used."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

import typer

from resonator.cli.exits import ExitCode, say

GROUP = "resonator.commands"
_HELP = {
    "agent": "Offer this box to a hub: measure kernels when asked.",
    "audit": "Tell who did what, from a hub's journal.",
    "backup": "Put aside what a hub knows, running or not.",
    "broker": "Configure a Mosquitto that lets only the fleet in.",
    "ca": "Keep a fleet's authority: say who belongs to it.",
    "demo": "Tune a real model on this machine, end to end.",
    "enroll-token": "Print a token with which boxes of a site enrol.",
    "hub": "Run a hub: take in jobs and tune them on the fleet.",
    "replay": "Tell the story of a job, a task or a device from a hub's journal.",
    "restore": "Take up what `resonator backup` put aside.",
    "site": "Join boxes behind a broker of their own to the hub's.",
}
"""One line for each verb of ours, so that `resonator --help` need not import TVM to ask for it."""

_ALL_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def add_verbs(app: typer.Typer) -> None:
    """Give `app` a verb for each function or group that the entry points `resonator.commands` name."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        app.command(entry.name, help=_HELP.get(entry.name), context_settings=_ALL_ARGUMENTS)(_verb(entry))


def _verb(entry: EntryPoint) -> Callable[[typer.Context], None]:
    def verb(context: typer.Context) -> None:
        raise typer.Exit(_run(entry, context.args))

    return verb


def _run(entry: EntryPoint, arguments: list[str]) -> int:
    extra = entry.module.partition(".")[0].removeprefix("resonator_")
    try:
        loaded = entry.load()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"resonator", entry.module.partition(".")[0]}:
            raise  # a fault of ours, not a missing extra
        say(f"`resonator {entry.name}`: this needs resonator[{extra}]: pip install 'resonator[{extra}]'")
        return ExitCode.BAD_INPUT
    app = loaded if isinstance(loaded, typer.Typer) else _of_one(entry.name, loaded)
    code = app(args=arguments, prog_name=f"resonator {entry.name}", standalone_mode=False)
    return code if isinstance(code, int) else ExitCode.FINE


def _of_one(name: str, function: Callable[..., None]) -> typer.Typer:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name)(function)
    return app
