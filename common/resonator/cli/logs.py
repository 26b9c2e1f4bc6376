"""Where log lines go: to stderr, so that stdout holds results alone."""

from __future__ import annotations

import logging
import os
import sys

import structlog
from structlog.typing import Processor


def configure(level: str = "warning", *, json: bool = False) -> None:
    """Send log lines of `level` and above to stderr: coloured on a terminal, or as one JSON object each."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            *(_for_machines() if json else _for_people()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(int(logging.getLevelName(level.upper()))),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # looked up late: tests replace it
    )


def _for_people() -> list[Processor]:
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR"),
        pad_event_to=0,
        exception_formatter=structlog.dev.plain_traceback,  # the default prints every local
    )
    return [structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False), console]


def _for_machines() -> list[Processor]:
    return [
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(default=str),
    ]
