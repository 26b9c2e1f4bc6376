"""The `resonator` command."""

from __future__ import annotations

import importlib.metadata
import io
import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from resonator.cli import bundles, devices, doctor, jobs, logs, sites, submit
from resonator.cli.exits import reported
from resonator.cli.verbs import add_verbs


class Verbs(TyperGroup):
    """The verbs; whatever one of them raises ends here."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb that was asked for."""
        with reported():
            return super().invoke(ctx)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"resonator {importlib.metadata.version('resonator')}")
        raise typer.Exit


def make_app() -> typer.Typer:
    """Build the command with the verbs of this package and those that are added to it."""
    app = typer.Typer(
        name="resonator",
        cls=Verbs,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Tune models on real boxes, over MQTT.",
        epilog="Exit codes: 0 fine, 1 unexpected error, 2 bad usage or input, 3 broker or hub unreachable, "
        "4 refused, 5 job failed, 6 job canceled, 130 interrupted.",
    )

    @app.callback()
    def common(
        verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more on stderr.")] = False,
        version: Annotated[
            bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
        ] = False,
    ) -> None:
        logs.configure("debug" if verbose else "warning")

    for verb in (
        submit.submit,
        jobs.jobs,
        jobs.job,
        jobs.watch,
        jobs.cancel,
        jobs.fetch,
        devices.devices,
        devices.device,
        devices.drain,
        devices.undrain,
        sites.sites,
        doctor.doctor,
        bundles.run,
        bundles.bench,
    ):
        app.command()(verb)
    add_verbs(app)
    return app


def main() -> None:
    """Run the command; SIGTERM ends it as Ctrl-C does, whatever it is doing."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # terminals that do not know a sign such as µ
    make_app()()
