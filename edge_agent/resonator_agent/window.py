"""One open window: what was announced, when it expires, what has been measured in it."""

from __future__ import annotations

from typing import Literal

from resonator.messages import KernelPush, KernelResult, WindowClosed, WindowGrant, WindowOpened
from resonator_agent.events import Granted, Outcome

CloseReason = Literal["asked", "expired", "drained", "superseded", "restarted"]
STALE = "stale epoch"
"""What is refused because a later window was granted: it was late, or somebody kept it to say it again."""


class Window:
    """A lease on the box, from the moment it was opened; `expires` is on the agent's monotonic clock."""

    def __init__(self, granted: Granted, at: float, credit: int):
        grant = granted.grant
        self.grant: WindowGrant = grant
        # Counted from the opening: the wait for a superseded kernel is not the new job's loss.
        self.expires = at + grant.duration
        self.opened = WindowOpened(
            epoch=grant.epoch, job=grant.job, credit=credit, conditions=granted.conditions
        )
        self.measured: set[str] = set()

    def mismatch(self, push: KernelPush) -> str | None:
        """Say why a kernel does not belong in this window, or None when it does."""
        if push.epoch != self.grant.epoch:
            return f"{push.candidate} is for epoch {push.epoch}, the open window is {self.grant.epoch}"
        if push.job != self.grant.job:
            return f"{push.candidate} is of job {push.job}, the open window is of job {self.grant.job}"
        return None

    def result(self, push: KernelPush, outcome: Outcome) -> KernelResult:
        """Count a kernel as measured and say what came of it."""
        self.measured.add(push.candidate)
        return KernelResult(
            job=push.job,
            candidate=push.candidate,
            epoch=push.epoch,
            latencies=outcome.latencies,
            failure=outcome.failure,
            raced=outcome.raced,
            error=outcome.error,
            device_time=outcome.device_time,
            joules=outcome.joules,
            conditions=outcome.conditions,
        )

    def closed(self, reason: CloseReason) -> WindowClosed:
        """Say that the window is over."""
        return WindowClosed(
            epoch=self.grant.epoch, job=self.grant.job, reason=reason, measured=len(self.measured)
        )
