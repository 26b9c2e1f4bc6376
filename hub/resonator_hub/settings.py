"""The hub's settings: command line, then environment, then a TOML file, then the defaults; read once."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import platformdirs
from pydantic import Field, SecretStr
from pydantic.functional_validators import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

from resonator.bus.url import DEFAULT_PORT
from resonator.errors import InputInvalid
from resonator.ids import Name
from resonator.layers import LayeredSettings
from resonator.settings import DEFAULT_SITE
from resonator.trust.enrolment import PORT as ENROLMENT_PORT
from resonator_hub.frontends.model import MAX_MODEL_BYTES

EMBEDDED = "embedded"
LOCAL = "local"
_SCHEDULER = re.compile(r"(dask|tls)://([^\s/@]+):([0-9]{1,5})")


def _listed(value: object) -> object:
    """Read `0,2,3` as a list of numbers; anything else is left for pydantic to refuse."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    return value


def _place(value: str) -> str:
    if value != LOCAL and not _SCHEDULER.fullmatch(value):
        raise ValueError(f"write `{LOCAL}`, dask://HOST:PORT or tls://HOST:PORT")
    return value


Core = Annotated[int, Field(ge=0, le=4095)]
Cores = Annotated[tuple[Core, ...], NoDecode, BeforeValidator(_listed), Field(min_length=1)]


class HubSettings(LayeredSettings):
    """What a hub must know.

    `broker` is a URL, or `embedded` for one in this process at `port` of 127.0.0.1. `cores` are those the
    compute slots run on, all of this process's by default, and `slots` how many there are, one a core by
    default. `compute` is `local`, or the scheduler of a Dask cluster, dask://HOST:PORT or tls://HOST:PORT:
    slots are then its threads. `blobs` is where models, kernels and bundles are kept, a folder or a URL of
    fsspec's, by default in the state directory.
    `identity` is the folder of the hub's key and certificate, for a broker of mqtts://; `insecure` allows one
    on another machine without TLS. `ca` is the folder of the fleet's authority, if this hub is to keep it: it
    then gives itself an identity, renews those of boxes, and enrols boxes at port `door`.
    `database_url` names a database that hubs share, one of which leads while the others stand by; by default
    it is a file in `state`.
    `batch` bounds the candidates of a round, `window` is how long a device is granted, in seconds;
    `max_model` is how many bytes a model may have. At `status` metrics and probes are served: HOST:PORT, or a
    port of 127.0.0.1; nowhere by default. `log_level` is the least that is logged.
    Every event is kept for `keep_days` days: for so long a job's story can be told (`resonator replay`).
    """

    file_variable: ClassVar[str] = "RESONATOR_HUB_CONFIG"
    file_name: ClassVar[str] = "hub.toml"

    broker: Annotated[str, Field(min_length=1, max_length=1000)] = EMBEDDED
    port: Annotated[int, Field(ge=0, le=65535)] = DEFAULT_PORT
    state: Path = Field(default_factory=lambda: platformdirs.user_state_path("resonator") / "hub")
    database_url: SecretStr | None = None
    site: Name = DEFAULT_SITE
    hub: Name = "main"
    identity: Path | None = None
    insecure: bool = False
    ca: Path | None = None
    door: Annotated[int, Field(ge=0, le=65535)] = ENROLMENT_PORT
    policy: Literal["sequential", "greedy", "fair", "load_aware"] = "load_aware"
    cores: Cores | None = None
    slots: Annotated[int, Field(gt=0, le=1024)] | None = None
    compute: Annotated[str, AfterValidator(_place)] = LOCAL
    blobs: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    batch: Annotated[int, Field(ge=4, le=1024)] = 16
    max_model: Annotated[int, Field(ge=2**10, le=MAX_MODEL_BYTES)] = MAX_MODEL_BYTES
    window: Annotated[float, Field(ge=5, le=3600, allow_inf_nan=False)] = 60.0
    keep_days: Annotated[int, Field(ge=1, le=36_500)] = 30

    status: Annotated[str, Field(max_length=300)] | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def blob_place(self) -> str:
        """Where blobs are kept: an absolute path, or a URL."""
        if self.blobs is None:
            return str((self.state / "blobs").absolute())
        return self.blobs if "://" in self.blobs else str(Path(self.blobs).expanduser().absolute())

    @property
    def scheduler(self) -> str | None:
        """The address of the Dask scheduler as Dask writes it; None when compute is local."""
        return None if self.compute == LOCAL else self.compute.replace("dask://", "tcp://")

    def usable_cores(self) -> tuple[int, ...]:
        """Return the cores for compute; raises InputInvalid for one that this process may not use."""
        available = sorted(os.sched_getaffinity(0))
        if self.cores is None:
            return tuple(available)
        if missing := sorted(set(self.cores) - set(available)):
            raise InputInvalid(f"cores: {missing} are not among those this process may use, {available}")
        return self.cores


def load(**given: Any) -> HubSettings:
    """Read the settings; what is given and not None wins. Raises `InputInvalid`."""
    return HubSettings.read(given)
