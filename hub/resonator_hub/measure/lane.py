"""PURE: the kernels on their way to one device in one window, within the credit the device gave."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from resonator.ids import CandidateId
from resonator_hub.scheduler.commands import Profile


@dataclass(frozen=True)
class Push:
    """A kernel to be staged; `size` is what it takes from the credit, in bytes."""

    command: Profile
    size: int
    message_id: str


class Lane:
    """Flow control: what is pushed and has no result yet never exceeds `credit` bytes."""

    def __init__(self, epoch: int, credit: int) -> None:
        self.epoch = epoch
        self.credit = credit
        self._waiting: deque[Push] = deque()
        self._outstanding: dict[CandidateId, Push] = {}

    @property
    def outstanding(self) -> tuple[Push, ...]:
        """What was sent and has no result yet, in order."""
        return tuple(self._outstanding.values())

    def __contains__(self, candidate: str) -> bool:
        return candidate in self._outstanding or any(p.command.candidate == candidate for p in self._waiting)

    def add(self, push: Push) -> None:
        """Queue a kernel."""
        self._waiting.append(push)

    def done(self, candidate: CandidateId) -> None:
        """Give back the credit of a kernel that has its result."""
        self._outstanding.pop(candidate, None)

    def to_send(self) -> list[Push]:
        """Return the kernels that fit into the credit now, in order; they are outstanding from here on."""
        free = self.credit - sum(push.size for push in self._outstanding.values())
        sent = []
        while self._waiting and self._waiting[0].size <= free:
            push = self._waiting.popleft()
            self._outstanding[push.command.candidate] = push
            free -= push.size
            sent.append(push)
        return sent
