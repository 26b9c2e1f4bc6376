"""Which package performs which command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from resonator.errors import ResonatorError
from resonator.failures import Failure, FailureKind
from resonator_hub.artifacts import stage as artifacts
from resonator_hub.build import stage as build
from resonator_hub.cost_model.stage import Updates
from resonator_hub.fleet import Windows
from resonator_hub.frontends import ModelInvalid
from resonator_hub.frontends import stage as frontends
from resonator_hub.jobs.board import Board
from resonator_hub.jobs.store import Jobs
from resonator_hub.measure import Measuring
from resonator_hub.records import Records
from resonator_hub.scheduler.commands import (
    Build,
    CloseWindow,
    Command,
    Compile,
    Deliver,
    Extract,
    OpenWindow,
    Profile,
    Record,
    Report,
    Select,
    Update,
)
from resonator_hub.scheduler.events import Answer, BuildFailed, Stage, StageFailed
from resonator_hub.search.stage import Selects
from resonator_hub.watch.keys import keys_of
from resonator_hub.workshop import Workshop

log = structlog.get_logger(__name__)
MODEL_TIMEOUT_S = 30.0
"""The least time limit of a whole model, in seconds: untuned it may take several for a single run."""

Act = Callable[[Any], object]
"""Performs a command at once."""
Work = Callable[[Any], Awaitable[Answer]]
"""Performs a command in its own time; the event is its outcome."""


def stages(shop: Workshop) -> Mapping[type[Command], Work]:
    """Return who performs each step that takes compute."""
    updates, selects = Updates(), Selects()
    return {
        Extract: partial(frontends.perform, shop=shop),
        Select: partial(selects.perform, shop=shop),
        Build: partial(build.perform, shop=shop),
        Update: partial(updates.perform, shop=shop),
        Compile: partial(artifacts.compile_, shop=shop),
        Deliver: partial(artifacts.deliver, shop=shop),
    }


@dataclass(frozen=True)
class Acts:
    """Performs what takes no compute: windows, kernels to devices, records, reports."""

    windows: Windows
    measuring: Measuring
    records: Records
    jobs: Jobs
    board: Board

    def table(self) -> Mapping[type[Command], Act]:
        """Return who performs each command."""
        return {
            OpenWindow: self._open,
            CloseWindow: self.windows.end,
            Profile: self.measuring.push,
            Record: self.records.keep,
            Report: self._report,
        }

    def recall(self) -> Mapping[type[Command], Act]:
        """Return who must know of the commands of an earlier life, which are not performed again.

        They come from the journal, or from what a snapshot remembers of it: see `snapshots.Moment.past`.
        """
        return {
            Profile: self.measuring.remember,
            Record: self.records.keep,
            Report: self._forget_ended,
        }

    def _open(self, command: OpenWindow) -> None:
        measure = self.jobs.get(command.job).spec.spec.measure
        if command.model:
            measure = measure.model_copy(update={"timeout_s": max(measure.timeout_s, MODEL_TIMEOUT_S)})
        self.windows.open(command, measure)

    def _report(self, command: Report) -> None:
        self._forget_ended(command)
        self.board.report(command.job, ended=command.ended)

    def _forget_ended(self, command: Report) -> None:
        if command.ended:
            self.measuring.forget(command.job)
            self.board.ended(command.job)


def failed(command: Command, error: Exception, at: float) -> Answer:
    """Return the event of a step that ended in an exception; what nobody expected is logged in full."""
    kind = FailureKind.STAGE_FAILED
    if isinstance(error, ModelInvalid):
        kind = FailureKind.MODEL_INVALID
    elif not isinstance(error, ResonatorError):
        log.error("a step failed", step=type(command).__name__, **keys_of(command), exc_info=error)
    detail = str(error) or type(error).__name__
    failure = Failure(kind=kind, detail=detail[:1000])
    match command:
        case Build():
            return BuildFailed(at, command.job, command.candidate, failure)
        case Select() | Update():
            return _stage_failed(command, at, failure)
        case Compile():
            return StageFailed(at, command.job, "compile", failure, tuned=command.tuned)
        case Extract():
            return StageFailed(at, command.job, "extract", failure)
        case Deliver():
            return StageFailed(at, command.job, "deliver", failure)
    raise TypeError(f"{type(command).__name__} is no step") from error


def _stage_failed(command: Select | Update, at: float, failure: Failure) -> StageFailed:
    stage: Stage = "select" if isinstance(command, Select) else "update"
    return StageFailed(at, command.job, stage, failure, command.task, command.round)
