"""`resonator agent`: offer this box to a hub."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

import platformdirs
import structlog
import typer
from pydantic import TypeAdapter, ValidationError

from resonator import settings
from resonator.bus.url import parse_broker_url
from resonator.cli import logs
from resonator.cli.options import Insecure, JsonLog
from resonator.errors import InputInvalid
from resonator.ids import NAME_RULE, is_name
from resonator.jobspec import Label, LabelValue, explain
from resonator.messages import Identity
from resonator.trust import Credentials, Party, credentials_for, invitation
from resonator_agent import bootstrap, identify
from resonator_agent.enroll import enrol_patiently, enroll, parse_address, place
from resonator_agent.memory import Memory
from resonator_agent.runtime import Settings
from resonator_agent.worker_process import Limits

log = structlog.get_logger(__name__)

MIN_KERNEL_MEMORY_MB = 256
_LABELS: TypeAdapter[dict[str, str]] = TypeAdapter(dict[Label, LabelValue])


boxes = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
boxes.command()(enroll)


@boxes.callback(invoke_without_command=True)
def agent(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="This box's name, unique at its site.")
    ] = None,
    broker: Annotated[
        str | None, typer.Option(metavar="URL", help="The broker's address [RESONATOR_BROKER].")
    ] = None,
    site: Annotated[str | None, typer.Option(metavar="SITE", help="The box's site [RESONATOR_SITE].")] = None,
    identity: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="This box's key and certificate, where `enroll` did not put them."),
    ] = None,
    insecure: Insecure = False,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            envvar="RESONATOR_TOKEN",
            help="Enroll this box first, unless it is: what `resonator enroll-token` printed.",
        ),
    ] = None,
    hub: Annotated[
        str | None,
        typer.Option(metavar="HOST[:PORT]", help="Where to enroll; by default on the broker's machine."),
    ] = None,
    cores: Annotated[int, typer.Option(min=1, help="How many cores to measure on.")] = 1,
    cpus: Annotated[
        str | None, typer.Option(metavar="1,3", help="Measure on these very cores instead.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="A label jobs can ask for; may be repeated.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to keep what must survive.")
    ] = None,
    max_foreign_load: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Reject a measurement when others take more of the cores."),
    ] = 0.25,
    kernel_memory: Annotated[
        int | None,
        typer.Option(
            metavar="MB", min=MIN_KERNEL_MEMORY_MB, help="What one kernel may use; default half the box."
        ),
    ] = None,
    json: JsonLog = False,
) -> None:
    """Offer this box to a hub: measure kernels when asked, until Ctrl-C.

    Exit codes: 0 drained, 2 bad usage, 4 the name is taken, 130 stopped at once by a second Ctrl-C.
    """
    if context.invoked_subcommand is not None:
        return
    logs.configure("info", json=json)
    if name is None:
        raise InputInvalid("--name is missing: a box has a name that is unique at its site")
    chosen = settings.load(broker=broker, site=site, identity=identity, insecure=insecure or None)
    if not is_name(name):
        raise InputInvalid(f"--name {name!r} is not a name: {NAME_RULE}")
    credentials = own_credentials(chosen, name, token, hub)
    labels = parse_labels(label or [])
    limits = Limits(
        cores=choose_cores(cores, cpus, os.sched_getaffinity(0)),
        memory=kernel_memory_bytes(kernel_memory, identify.memory_bytes()),
        max_foreign_load=max_foreign_load,
    )
    folder = state or platformdirs.user_state_path("resonator") / "agents" / chosen.site / name
    memory = Memory(folder.absolute())
    stand_aside(limits.cores)
    try:
        offered = identify_box(limits.cores, labels, memory.folder)
        log.info(
            f"device {chosen.site}/{name}: {offered.cpu_model}, cores {_listed(limits.cores)}, "
            f"target {offered.offers[0].target}"
        )
        box = Settings(name, chosen.site, chosen.broker, memory.folder, limits, credentials)
        with structlog.contextvars.bound_contextvars(device=box.source):  # on every line from here on
            code = asyncio.run(bootstrap.run(box, offered, memory))
    finally:
        memory.release()
    raise typer.Exit(code)


def own_credentials(
    chosen: settings.ClientSettings, name: str, token: str | None, hub: str | None
) -> Credentials | None:
    """Return this box's identity, None where the broker asks for none; it enrolls first if it has a token."""
    party = Party("device", chosen.site, name)
    folder = chosen.identity or place(chosen.site, name)
    if token is not None and not folder.is_dir():
        host = parse_broker_url(chosen.broker).host
        enrol_patiently(folder, invitation.parse(token), party, *parse_address(hub or f"[{host}]"))
        log.info(f"{party.user} is enrolled, its identity is in {folder}")
    own = folder if chosen.identity or folder.is_dir() else None
    return credentials_for(chosen.broker, own, insecure=chosen.insecure, party=party)


def identify_box(cores: Sequence[int], labels: dict[str, str], folder: Path) -> Identity:
    """Probe this box; what TVM says of it is kept in `folder`."""
    cpu = identify.this_cpu()
    facts = identify.tvm_facts(folder / "tvm.json", cpu)
    gpus = identify.find_gpus()
    if gpus and not facts.cuda:
        log.warning(f"{gpus[0].name} is not offered: this TVM is built without CUDA")
    return identify.identify(cores, labels, facts, gpus=gpus)


def parse_labels(given: Sequence[str]) -> dict[str, str]:
    """Read `k=v` labels; raises InputInvalid."""
    pairs = [text.partition("=") for text in given]
    for text, (_, equals, _) in zip(given, pairs, strict=True):
        if not equals:
            raise InputInvalid(f"--label {text!r} is not of the form KEY=VALUE")
    try:
        return _LABELS.validate_python({key: value for key, _, value in pairs})
    except ValidationError as error:
        raise InputInvalid(f"--label: {explain(error)}") from None


def choose_cores(count: int, cpus: str | None, available: Collection[int]) -> tuple[int, ...]:
    """Return the cores to measure on: those named, or the last `count`, since interrupts favour the first."""
    usable = sorted(available)
    if cpus is None:
        if count > len(usable):
            raise InputInvalid(f"--cores {count}: this process may use {len(usable)} ({_listed(usable)})")
        return tuple(usable[-count:])
    try:
        named = {int(text) for text in cpus.split(",")}
    except ValueError:
        raise InputInvalid(f"--cpus {cpus!r} is not a list of core numbers such as 1,3") from None
    if not named <= set(usable):
        raise InputInvalid(f"--cpus {cpus}: this process may use the cores {_listed(usable)}")
    return tuple(sorted(named))


def stand_aside(cores: Sequence[int]) -> None:
    """Keep this process off the cores that kernels are measured on, where there are others."""
    others = os.sched_getaffinity(0) - set(cores)
    if others:
        os.sched_setaffinity(0, others)


def kernel_memory_bytes(given_mb: int | None, box: int) -> int:
    """Return the bytes that one kernel's process may use: as given, or half the box's memory."""
    if given_mb is not None:
        return given_mb * 2**20
    return max(box // 2, MIN_KERNEL_MEMORY_MB * 2**20)


def _listed(cores: Sequence[int]) -> str:
    return ",".join(map(str, cores))
