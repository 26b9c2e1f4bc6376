"""Work for a compute slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resonator.ids import JobId
from resonator_hub.scheduler.commands import Command
from resonator_hub.scheduler.events import Stage

if TYPE_CHECKING:
    from resonator_hub.scheduler.candidate import Candidate

ORDER: dict[Stage, int] = {"deliver": 0, "extract": 1, "compile": 2, "build": 3, "update": 4, "select": 5}
"""Within a job: what ends it or feeds a device first, and a selection as late (so as informed) as may be."""


@dataclass(slots=True, eq=False)
class Step:
    """Work for one compute slot, asked for by `command`, under a key that its answer bears too."""

    key: tuple[Any, ...]
    kind: Stage
    job: JobId
    seq: int
    command: Command
    doing: str
    candidate: Candidate | None = None
    started_at: float = 0.0
    charged_s: float = 0.0
    asked: bool = False
    running: bool = False
