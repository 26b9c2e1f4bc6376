"""A `resonator` command that is killed at one step: `dying.py POINT before|after NUMBER COMMAND...`.

A POINT is `journal:KernelBuilt` (an event is written down), `compute:build` (a stage is handed to a worker),
`outbox` (a box keeps a result), `acknowledged` (it forgets one), `window:open` or `window:closed` (it writes
its window down). The process sends itself SIGKILL before or after it passes the point for the NUMBER-th time:
nothing is flushed, no goodbye is said, as if somebody else had sent it at that very moment.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

Applies = Callable[..., bool]


def die_at(owner: type, method: str, applies: Applies, when: str, number: int) -> None:
    """Have the process killed at the `number`-th call of a method whose arguments `applies` accepts."""
    original, left = getattr(owner, method), number

    def passing(self: Any, *args: Any, **named: Any) -> Any:
        nonlocal left
        here = applies(*args)
        left -= here
        if here and left == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(self, *args, **named)
        if here and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, method, passing)


def prepare(point: str, when: str, number: int) -> None:
    """Arm one point."""
    family, _, name = point.partition(":")
    if family == "journal":
        from resonator_hub.journal import Journal

        kept: Applies = lambda entries, *_: any(type(event).__name__ == name for event, _ in entries)  # noqa: E731
        die_at(Journal, "append_all", kept, when, number)
    elif family == "compute":
        from resonator_hub.pool import WarmPool

        die_at(WarmPool, "submit", lambda function, *_: function.__name__ == name, when, number)
    elif family in {"outbox", "acknowledged"}:
        from resonator_agent.outbox import Outbox

        die_at(Outbox, "add" if family == "outbox" else "acknowledge", lambda *_: True, when, number)
    elif family == "window":
        from resonator_agent.memory import Memory

        die_at(Memory, "store_window", lambda _epoch, job: (job is None) == (name == "closed"), when, number)
    else:
        raise SystemExit(f"{point!r} is no point")


if __name__ == "__main__":
    prepare(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    sys.argv = ["resonator", *sys.argv[4:]]
    from resonator.cli.main import main

    main()
