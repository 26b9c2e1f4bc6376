"""Settings in layers: what was given, then the environment, then a TOML file, then the defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import platformdirs
from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from typing_extensions import Self

from resonator.errors import InputInvalid
from resonator.jobspec import explain


class LayeredSettings(BaseSettings):
    """Frozen settings; each field is also `RESONATOR_{FIELD}` in the environment.

    The file is the one that the environment variable `file_variable` names, else `file_name` in the user's
    configuration folder.
    """

    model_config = SettingsConfigDict(env_prefix="RESONATOR_", frozen=True, extra="forbid")
    file_variable: ClassVar[str]
    file_name: ClassVar[str]

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
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, cls.file())

    @classmethod
    def file(cls) -> Path:
        """Return the path of the settings file, whether or not it exists."""
        given = os.environ.get(cls.file_variable)
        return Path(given) if given else platformdirs.user_config_path("resonator") / cls.file_name

    @classmethod
    def read(cls, given: dict[str, Any]) -> Self:
        """Read the settings; what is given and not None wins.

        Raises `InputInvalid` for a file that is not there although named, is not TOML, or holds a bad value.
        """
        path = cls.file()
        if cls.file_variable in os.environ and not path.is_file():
            raise InputInvalid(f"{cls.file_variable} names {path}, which is not a file")
        try:
            return cls(**{key: value for key, value in given.items() if value is not None})
        except ValidationError as error:
            raise InputInvalid(f"settings (command line, RESONATOR_*, {path}): {explain(error)}") from error
        except (ValueError, OSError) as error:
            raise InputInvalid(f"{path} is not a readable TOML file: {error}") from error
