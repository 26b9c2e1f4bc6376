"""What the `resonator` command exits with, and the one place where errors become a sentence and a code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import typer

from resonator.errors import InputInvalid, Refused, ResonatorError, Unreachable
from resonator.full_disk import unusable
from resonator.messages import JobState


class ExitCode(IntEnum):
    """Exit codes, as documented in docs/user-guide.md."""

    FINE = 0
    UNEXPECTED = 1
    BAD_INPUT = 2
    UNREACHABLE = 3
    REFUSED = 4
    JOB_FAILED = 5
    CANCELED = 6
    INTERRUPTED = 130


_CODES: tuple[tuple[type[ResonatorError], ExitCode], ...] = (
    (InputInvalid, ExitCode.BAD_INPUT),
    (Unreachable, ExitCode.UNREACHABLE),
    (Refused, ExitCode.REFUSED),
    (ResonatorError, ExitCode.UNEXPECTED),
)

_OUTCOMES = {JobState.FAILED: ExitCode.JOB_FAILED, JobState.CANCELED: ExitCode.CANCELED}


def code_of(error: ResonatorError) -> ExitCode:
    """Return the exit code of an error."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


def outcome(state: JobState) -> ExitCode:
    """Return the exit code of waiting for a job that ended in `state`."""
    return _OUTCOMES.get(state, ExitCode.FINE)


@contextmanager
def reported() -> Iterator[None]:
    """Turn errors of ours into one sentence on stderr and an exit code; others keep their traceback."""
    try:
        yield
    except ResonatorError as error:
        say(str(error))
        raise typer.Exit(code_of(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except Exception as error:
        if (told := unusable(error)) is None:
            raise
        say(str(told))
        raise typer.Exit(code_of(told)) from None


def say(sentence: str) -> None:
    """Tell the user something on stderr, where it never mixes with results."""
    print(f"resonator: {sentence}", file=sys.stderr)
