"""`resonator run` and `bench`: what can be done with a bundle."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resonator.cli import options
from resonator.cli.connect import with_client
from resonator.cli.exits import outcome, say
from resonator.cli.live import watch
from resonator.cli.output import latency, print_json
from resonator.client import Client
from resonator.errors import InputInvalid
from resonator.messages import JobStatus

if TYPE_CHECKING:
    from numpy.typing import NDArray


def run(
    bundle: options.BundleArgument,
    input: Annotated[Path, typer.Option("--input", "-i", metavar="IN.npz", help="An array for each input.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.npz", help="Where the outputs go.")],
    json: options.Json = False,
) -> None:
    """Run a bundle on this machine, with the TVM runtime alone."""
    _require("numpy", "tvm")
    outputs = _run(bundle, input)
    _write_arrays(output, outputs)
    if json:
        shapes = {name: {"dtype": str(array.dtype), "shape": array.shape} for name, array in outputs.items()}
        print_json({"output": str(output), "outputs": shapes})
    else:
        say(f"{', '.join(outputs)} written to {output}")


def _require(*modules: str) -> None:
    if missing := [module for module in modules if find_spec(module) is None]:
        raise InputInvalid(
            f"`resonator run` needs resonator[agent] ({', '.join(missing)} not installed): "
            "pip install 'resonator[agent]'"
        )


def _run(bundle: Path, path: Path) -> dict[str, NDArray[Any]]:
    from resonator.bundle import BundleInvalid, TensorsInvalid, load

    inputs = _read_arrays(path)
    try:
        return load(bundle)(inputs)
    except (BundleInvalid, TensorsInvalid) as error:
        raise InputInvalid(f"{bundle}: {error}") from error


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    from resonator.arrays import ArraysInvalid, read_arrays

    try:
        with open(path, "rb") as file:
            return read_arrays(file)
    except OSError as error:
        raise InputInvalid(f"--input {path} cannot be read: {error.strerror or error}") from error
    except ArraysInvalid as error:
        raise InputInvalid(f"--input {path} {error}") from error


def _write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    import numpy as np

    try:
        with open(path, "wb") as file:  # given a name, numpy would add a suffix to it
            np.savez(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise InputInvalid(f"--output {path} cannot be written: {error.strerror}") from error


def bench(
    bundle: options.BundleArgument,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="On this very device.")] = None,
    json: options.Json = False,
    broker: options.Broker = None,
    site: options.Site = None,
    identity: options.Identity = None,
) -> None:
    """Have a bundle measured on a device, in a window of its own."""

    async def use(client: Client) -> JobStatus:
        return await watch(client, await client.bench(bundle, device), json=json)

    status = with_client(broker, site, identity, use)
    if status.tuned is not None and not json:
        spread = f"{latency(status.tuned.low)} to {latency(status.tuned.high)}"
        print(f"{latency(status.tuned.median)} ({spread}) on {status.tuned.device}")
    raise typer.Exit(outcome(status.state))
