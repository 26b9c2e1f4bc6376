"""The way to an authority, for programs that open it again and again."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from resonator_hub.authority.authority import Authority


@dataclass(frozen=True)
class Access:
    """An authority's folder, and what opens it; between two uses others may change it."""

    folder: Path
    passphrase: bytes | None = field(default=None, repr=False)

    def opened(self) -> AbstractContextManager[Authority]:
        """Hold the authority; raises InputInvalid as `Authority.open` does."""
        return Authority.open(self.folder, self.passphrase)
