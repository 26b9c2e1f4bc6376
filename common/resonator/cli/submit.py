"""`resonator submit`: a model file with flags, or a job file, becomes a job."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from resonator import jobspec
from resonator.cli import options
from resonator.cli.connect import with_client
from resonator.cli.exits import ExitCode, outcome, say
from resonator.cli.live import watch
from resonator.cli.output import check_place, print_json
from resonator.client import Client, read_job
from resonator.client.order import MODEL_SUFFIX, SPEC_SUFFIXES, Order, name_for
from resonator.errors import InputInvalid
from resonator.jobspec import TuningJob
from resonator.messages import JobState

_HARDWARE = ("kind", "labels", "device", "tag")


@dataclass(frozen=True, slots=True)
class Flags:
    """What the flags of `submit` say; None where one was not given."""

    kind: str | None = None
    labels: tuple[str, ...] = ()
    device: str | None = None
    tag: str | None = None
    trials: int | None = None
    time: str | None = None
    shapes: tuple[str, ...] = ()
    priority: int | None = None
    objective_ms: float | None = None
    name: str | None = None
    again: bool = False


def submit(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.onnx|JOB.yaml", help="A model, or a job description.")
    ],
    kind: Annotated[str | None, typer.Option(help="Any device of this kind: cpu or cuda.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="K=V", help="A label it must bear.")] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="This very device.")] = None,
    tag: Annotated[str | None, typer.Option(help="A TVM target tag it must offer.")] = None,
    trials: Annotated[int | None, typer.Option(help="Candidates to try over all tasks.")] = None,
    time: Annotated[str | None, typer.Option(help="Time to spend: 90s, 30m, 2h.")] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=1,3,224,224", help="The shape of an input with dynamic dimensions."),
    ] = None,
    priority: Annotated[int | None, typer.Option(help="0 to 9, 9 is the most urgent.")] = None,
    objective_ms: Annotated[float | None, typer.Option(help="Stop at this latency.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call the job.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Spend the trials also where earlier jobs have tried as much.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Watch the job until it has ended.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="BUNDLE", help="Wait, and write the bundle to this file."),
    ] = None,
    json: options.Json = False,
    broker: options.Broker = None,
    site: options.Site = None,
    identity: options.Identity = None,
) -> None:
    """Have a model tuned."""
    flags = Flags(
        kind,
        tuple(label or ()),
        device,
        tag,
        trials,
        time,
        tuple(shape or ()),
        priority,
        objective_ms,
        name,
        again,
    )
    order = make_order(file, flags)
    if output is not None:
        check_place(output)

    async def use(client: Client) -> ExitCode:
        return await _submit(client, order, wait or output is not None, output, json)

    raise typer.Exit(with_client(broker, site, identity, use))


async def _submit(client: Client, order: Order, wait: bool, output: Path | None, json: bool) -> ExitCode:
    job = await client.submit(order.job, order.model)
    if not wait:
        if json:
            print_json({"job": job})
        else:
            print(job)
            say(f"accepted; `resonator watch {job}` follows it")
        return ExitCode.FINE
    status = await watch(client, job, json=json)
    if output is not None and status.state is JobState.SUCCEEDED:
        await client.fetch(job, output)
        say(f"bundle written to {output}")
    return outcome(status.state)


def make_order(file: Path, flags: Flags) -> Order:
    """Make a job of a model or a job file and the flags, which win; raises `InputInvalid`."""
    suffix = file.suffix.lower()
    if suffix in SPEC_SUFFIXES:
        order = read_job(file)
        data = order.job.model_dump(by_alias=True, exclude_none=True)
        return Order(_merged(data, flags), order.model)
    if suffix != MODEL_SUFFIX:
        accepted = ", ".join((MODEL_SUFFIX, *SPEC_SUFFIXES))
        raise InputInvalid(f"{file} is neither a model nor a job description: {accepted} are accepted")
    data = {
        "metadata": {"name": name_for(file)},
        "spec": {"model": {"onnx": file.name}, "target": {}, "budget": {}},
    }
    if not any(getattr(flags, field) for field in _HARDWARE):
        data["spec"]["target"] = {"kind": "cpu"}
    return Order(_merged(data, flags), file)


def _merged(data: dict[str, Any], flags: Flags) -> TuningJob:
    spec = data["spec"]
    if flags.name is not None:
        data["metadata"]["name"] = flags.name
    target = {
        "kind": flags.kind,
        "labels": dict(_pairs("--label", "K=V", flags.labels, str.partition)) or None,
        "device": flags.device,
        "tag": flags.tag,
    }
    spec["target"] |= {key: value for key, value in target.items() if value is not None}
    budget = {"trials": flags.trials, "time": flags.time, "again": flags.again or None}
    spec["budget"] |= {key: value for key, value in budget.items() if value is not None}
    given = _pairs("--shape", "NAME=1,3", flags.shapes, str.rpartition)  # a tensor's name may hold `=`
    if shapes := {name: _dims(name, dims) for name, dims in given}:
        spec["model"]["shapes"] = spec["model"].get("shapes", {}) | shapes
    if flags.priority is not None:
        spec["priority"] = flags.priority
    if flags.objective_ms is not None:
        spec["objective"] = {"latency_ms": flags.objective_ms}
    return jobspec.validate(data)


def _pairs(
    flag: str, form: str, texts: Iterable[str], split: Callable[[str, str], tuple[str, str, str]]
) -> Iterable[tuple[str, str]]:
    for text in texts:
        name, equals, value = split(text, "=")
        if not (name and equals and value):
            raise InputInvalid(f"{flag} {text!r} is not of the form {form}")
        yield name, value


def _dims(name: str, text: str) -> list[int]:
    try:
        return [int(dim) for dim in text.split(",")]
    except ValueError:
        raise InputInvalid(
            f"--shape {name}={text}: {text!r} is not a list of whole numbers such as 1,3,224,224"
        ) from None
