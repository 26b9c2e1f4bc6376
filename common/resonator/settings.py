"""Where a client finds its broker: command line, then environment, then a TOML file, then the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from resonator.ids import Name
from resonator.layers import LayeredSettings

DEFAULT_BROKER = "mqtt://127.0.0.1:1883"
DEFAULT_SITE = "local"


class ClientSettings(LayeredSettings):
    """What every client verb must know.

    `timeout` is how long, in seconds, a broker or hub may leave a client without an answer. `identity` is the
    folder of the user's key and certificate; `insecure` allows brokers on other machines without TLS.
    """

    file_variable: ClassVar[str] = "RESONATOR_CONFIG"
    file_name: ClassVar[str] = "client.toml"

    broker: Annotated[str, Field(min_length=1, max_length=1000)] = DEFAULT_BROKER
    site: Name = DEFAULT_SITE
    identity: Path | None = None
    insecure: bool = False
    timeout: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 10.0


def load(**given: Any) -> ClientSettings:
    """Read the settings; what is given and not None wins. Raises `InputInvalid`."""
    return ClientSettings.read(given)
