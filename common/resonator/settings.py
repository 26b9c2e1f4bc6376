"""Where a client finds its broker: command line, then environment, then a TOML file, then the defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import platformdirs
from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from resonator.errors import InputInvalid
from resonator.ids import Name
from resonator.jobspec import explain

DEFAULT_BROKER = "mqtt://127.0.0.1:1883"
DEFAULT_SITE = "local"
CONFIG_VARIABLE = "RESONATOR_CONFIG"


class ClientSettings(BaseSettings):
    """What every client verb must know; each field is also `RESONATOR_{FIELD}` in the environment.

    `timeout` is how long, in seconds, a broker or hub may leave a client without an answer.
    """

    model_config = SettingsConfigDict(env_prefix="RESONATOR_", frozen=True, extra="forbid")

    broker: Annotated[str, Field(min_length=1, max_length=1000)] = DEFAULT_BROKER
    site: Name = DEFAULT_SITE
    timeout: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 10.0

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank the sources: what was given, the environment, the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())


def config_file() -> Path:
    """Return the path of the settings file, whether or not it exists."""
    given = os.environ.get(CONFIG_VARIABLE)
    return Path(given) if given else platformdirs.user_config_path("resonator") / "client.toml"


def load(**given: Any) -> ClientSettings:
    """Read the settings; what is given and not None wins.

    Raises `InputInvalid` for a file that is not there although named, is not TOML, or holds a bad value.
    """
    path = config_file()
    if CONFIG_VARIABLE in os.environ and not path.is_file():
        raise InputInvalid(f"{CONFIG_VARIABLE} names {path}, which is not a file")
    try:
        return ClientSettings(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        raise InputInvalid(f"settings (command line, RESONATOR_*, {path}): {explain(error)}") from error
    except (ValueError, OSError) as error:
        raise InputInvalid(f"{path} is not a readable TOML file: {error}") from error
