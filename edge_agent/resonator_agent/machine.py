"""The agent's states and the window it holds: events in, commands out, nothing else (DESIGN sections 3, 4).

Every rule is in one table keyed by (state, event):

    CLAIMING   asks whether the device's name is free; three seconds without an answer mean yes
    IDLE       no window
    READY      a window is open, no kernel is being measured
    MEASURING  a window is open and a kernel is being measured
    ENDING     the window closes as soon as the current kernel has ended; a later grant may wait behind it
    GONE       said goodbye, or gave the name up
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from enum import Enum
from typing import Any

from resonator.errors import ResonatorError
from resonator.messages import (
    DeviceClaim,
    DeviceState,
    Identity,
    KernelPush,
    Status,
    WindowClosed,
    WindowRefused,
)
from resonator_agent import commands as do
from resonator_agent import events as ev
from resonator_agent.naming import CLAIM_S, Bearer
from resonator_agent.stage import Stage
from resonator_agent.window import STALE, CloseReason, Window

DRAIN_S = 15.0
"""How long a drain waits for the current kernel before giving it up."""


class State(str, Enum):
    """Where the agent stands."""

    CLAIMING = "claiming"
    IDLE = "idle"
    READY = "ready"
    MEASURING = "measuring"
    ENDING = "ending"
    GONE = "gone"


class IllegalTransition(ResonatorError):
    """An event that cannot happen in this state; the sentence tells the story that led to it."""


class Machine:
    """One device under one agent; `step` is the only way in.

    `credit` is in bytes; `highest` the largest epoch ever accepted and `interrupted` the window that was
    open when an earlier life of this agent ended, both from disk.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        bearer: Bearer,
        credit: int,
        highest: int = 0,
        interrupted: tuple[int, str] | None = None,
    ):
        self.identity = identity
        self.bearer = bearer
        self.credit = credit
        self.highest = highest
        self.state = State.CLAIMING
        self.window: Window | None = None
        self.stage = Stage(credit)
        self.current: KernelPush | None = None
        self.refusals: Counter[str] = Counter()
        self._interrupted = interrupted
        self._claim_ends: float | None = None
        self._ending: CloseReason | None = None
        self._successor: ev.Granted | None = None
        self._drain_ends: float | None = None
        self._story: deque[str] = deque(maxlen=20)
        self._commands: list[do.Command] = []

    def step(self, event: ev.Event) -> list[do.Command]:
        """Take one event and return what is to be done; raises IllegalTransition and changes nothing."""
        rule = _RULES.get((self.state, type(event)))
        if rule is None:
            what = f"{type(event).__name__} cannot happen while {self.state.value}"
            story = "; ".join(self._story)
            raise IllegalTransition(f"{what}; before it: {story or 'nothing'}")
        before = self.state
        self._commands = []
        rule(self, event)
        self._story.append(f"{event.at:.3f} {type(event).__name__}: {before.value} -> {self.state.value}")
        commands, self._commands = self._commands, []
        return commands

    def announcement(self, *, contested_by: str | None = None) -> DeviceState:
        """Return the device's state as it is to be retained on the bus."""
        status = {State.IDLE: Status.IDLE, State.GONE: Status.OFFLINE}.get(self.state, Status.RUNNING)
        if self._drain_ends is not None and self.state is State.ENDING:
            status = Status.DRAINING
        return DeviceState(
            status=status,
            session=self.bearer.session,
            instance=self.bearer.instance,
            epoch=self.highest,
            identity=self.identity,
            credit=self.credit,
            reason="drained" if self.state is State.GONE else "",
            contested_by=contested_by,
        )

    # --- the name ---------------------------------------------------------------------------------------

    def _claim(self, event: ev.Connected) -> None:
        self._claim_ends = event.at + CLAIM_S
        self._do(do.Say(DeviceClaim(instance=self.bearer.instance)), do.WakeAt(self._claim_ends))

    def _rival_claims(self, event: ev.ClaimSeen) -> None:
        if reason := self.bearer.loses_to_claim(event.instance):
            self._give_up(reason)
        elif event.instance != self.bearer.instance:
            # The rival may have subscribed after this agent's first claim.
            self._do(do.Say(DeviceClaim(instance=self.bearer.instance)))

    def _holder_answers(self, event: ev.StateSeen) -> None:
        if reason := self.bearer.loses_to_holder(event.state):
            self._give_up(reason)

    def _claim_settled(self, event: ev.Woke) -> None:
        if self._claim_ends is None or event.at < self._claim_ends:
            return
        self.state = State.IDLE
        if self._interrupted is not None:
            epoch, job = self._interrupted
            self._interrupted = None
            self._do(
                do.Say(WindowClosed(epoch=epoch, job=job, reason="restarted")),
                do.StoreWindow(self.highest, None),
            )
        self._do(do.Say(self.announcement()), do.Repeat())

    def _newcomer_claims(self, event: ev.ClaimSeen) -> None:
        if event.instance != self.bearer.instance:
            self._do(do.Say(self.announcement(contested_by=event.instance)))

    def _other_state(self, event: ev.StateSeen) -> None:
        if event.state.status is Status.OFFLINE:
            # A late will, of this agent's last connection or of an earlier life: it must not stay retained.
            self._do(do.Say(self.announcement()))
        elif reason := self.bearer.loses_to_newer(event.state):
            self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        self.state = State.GONE
        self._do(do.GiveUp(reason))

    def _reconnected(self, event: ev.Connected) -> None:
        self._do(do.Say(self.announcement()), do.Repeat())

    # --- the window -------------------------------------------------------------------------------------

    def _granted(self, event: ev.Granted) -> None:
        grant, waiting = event.grant, self._successor
        if self.window is not None and grant == self.window.grant:
            if self.state is not State.ENDING:
                self._do(do.Say(self.window.opened))
        elif waiting is not None and grant == waiting.grant:
            pass  # answered once the current kernel has ended
        elif grant.epoch <= self.highest:
            self._refuse_grant(event, "a window of this or a later epoch has been seen", STALE)
        elif self._drain_ends is not None:
            self._refuse_grant(event, "the agent is draining")
        elif self.current is not None:
            self._wait_for_kernel(event)
        else:
            if self.window is not None:
                self._close("superseded")
            self._open(event, event.at)
            self._do(do.Say(self.announcement()))

    def _wait_for_kernel(self, event: ev.Granted) -> None:
        """Open the granted window as soon as the current kernel has ended."""
        self.highest = event.grant.epoch
        if self._successor is not None:
            self._refuse_grant(self._successor, "superseded before it opened")
        self._successor = event
        if self.state is State.MEASURING:
            self._end("superseded", stop=True)

    def _refuse_grant(self, event: ev.Granted, reason: str, what: str = "grant") -> None:
        grant = event.grant
        refused = WindowRefused(epoch=grant.epoch, job=grant.job, highest=self.highest, reason=reason)
        self.refusals[what] += 1
        self._do(do.Say(refused))

    def _open(self, granted: ev.Granted, at: float) -> None:
        window = Window(granted, at, self.credit)
        self.highest = window.grant.epoch
        self.state = State.READY
        self.stage = Stage(self.credit)
        self.window = window
        self._do(
            do.StoreWindow(self.highest, window.grant.job), do.Say(window.opened), do.WakeAt(window.expires)
        )

    def _close(self, reason: CloseReason) -> None:
        assert self.window is not None
        self._do(*(do.Discard(digest) for digest in self.stage.clear()))
        self._do(do.Say(self.window.closed(reason)), do.StoreWindow(self.highest, None))
        self.window = None
        self.current = None
        self._ending = None
        self.state = State.IDLE

    def _end(self, reason: CloseReason, *, stop: bool) -> None:
        """Close the window as soon as the current kernel has ended; with `stop` end that, too."""
        if self._ending is None:
            self._ending = reason
        self.state = State.ENDING
        if stop:
            self._do(do.StopProfiling())

    def _close_asked(self, event: ev.CloseAsked) -> None:
        if self.window is None or event.epoch != self.window.grant.epoch:
            what = STALE if event.epoch <= self.highest else "close"
            self._refuse(what, f"no window of epoch {event.epoch} is open")
        elif self.state is State.MEASURING:
            self._end("asked", stop=False)
        elif self.state is State.READY:
            self._close("asked")
            self._do(do.Say(self.announcement()))

    def _woke(self, event: ev.Woke) -> None:
        expired = self.window is not None and event.at >= self.window.expires
        drained = self._drain_ends is not None and event.at >= self._drain_ends
        if self.state is State.READY and expired:
            self._close("expired")
            self._do(do.Say(self.announcement()))
        elif self.state is not State.READY and (expired or drained):
            self._end("expired", stop=True)

    # --- kernels ----------------------------------------------------------------------------------------

    def _stage(self, event: ev.KernelPushed) -> None:
        assert self.window is not None
        push = event.push
        if reason := self.window.mismatch(push):
            self._refuse(STALE if push.epoch < self.window.grant.epoch else "another window", reason)
        elif push.candidate in self.window.measured:
            self.refusals["repeated"] += 1
            self._do(do.Repeat(push.candidate))
        elif push.candidate in self.stage:
            self.refusals["repeated"] += 1
        elif reason := self.stage.objection(push):
            self._refuse("credit", reason)
        else:
            self._do(*self.stage.add(push))
            self._start_next(event.at)

    def _push_unwelcome(self, event: ev.KernelPushed) -> None:
        what = STALE if event.push.epoch < self.highest else "no window"
        self._refuse(what, f"{event.push.candidate} came while the agent is {self.state.value}")

    def _blob_arrived(self, event: ev.BlobArrived) -> None:
        self.stage.arrived(event.digest)
        self._start_next(event.at)

    def _blob_failed(self, event: ev.BlobFailed) -> None:
        for push in self.stage.waiting_for(event.digest):
            self._finish(push, ev.Outcome(failure=event.failure))

    def _start_next(self, at: float) -> None:
        if self.state is not State.READY or self.window is None or at >= self.window.expires:
            return
        push = self.stage.next_ready()
        if push is not None:
            self.current = push
            self.state = State.MEASURING
            self._do(do.StartProfiling(push, self.window.grant.measure))

    def _measured(self, event: ev.ProfilingEnded) -> None:
        self._take(event.outcome)
        self.state = State.READY
        afterwards, self._commands = self._commands, []
        self._start_next(event.at)
        self._do(*afterwards)

    def _measured_ending(self, event: ev.ProfilingEnded) -> None:
        assert self._ending is not None
        self._take(event.outcome)
        self._close(self._ending)
        successor, self._successor = self._successor, None
        if self._drain_ends is not None:
            self._leave(event)
        elif successor is not None:
            self._open(successor, event.at)
        if self.state is not State.GONE:
            self._do(do.Say(self.announcement()))

    def _take(self, outcome: ev.Outcome | None) -> None:
        push, self.current = self.current, None
        assert push is not None
        if outcome is not None:
            self._finish(push, outcome)

    def _finish(self, push: KernelPush, outcome: ev.Outcome) -> None:
        assert self.window is not None
        self._do(do.Say(self.window.result(push, outcome)))
        self._do(*(do.Discard(digest) for digest in self.stage.remove(push.candidate)))

    # --- the end ----------------------------------------------------------------------------------------

    def _leave_unannounced(self, event: ev.DrainAsked) -> None:
        self.state = State.GONE
        self._do(do.Leave())

    def _drain_busy(self, event: ev.DrainAsked) -> None:
        if self._drain_ends is not None:
            self._do(do.StopProfiling())
            return
        self._drain_ends = event.at + DRAIN_S
        if self._successor is not None:
            self._refuse_grant(self._successor, "the agent is draining")
            self._successor = None
        self._end("drained", stop=False)
        self._do(do.Say(self.announcement()), do.WakeAt(self._drain_ends))

    def _leave(self, event: ev.Event) -> None:
        if self.window is not None:
            self._close("drained")
        self.state = State.GONE
        self._do(do.Say(self.announcement()), do.Leave())

    def _ignore(self, event: ev.Event) -> None:
        pass

    def _refuse(self, what: str, reason: str) -> None:
        self.refusals[what] += 1
        self._do(do.Refuse(what, reason))

    def _do(self, *commands: do.Command) -> None:
        self._commands.extend(commands)


_RULES: dict[tuple[State, type[ev.Event]], Callable[[Machine, Any], None]] = {
    (State.CLAIMING, ev.Connected): Machine._claim,
    (State.CLAIMING, ev.ClaimSeen): Machine._rival_claims,
    (State.CLAIMING, ev.StateSeen): Machine._holder_answers,
    (State.CLAIMING, ev.Woke): Machine._claim_settled,
    (State.CLAIMING, ev.DrainAsked): Machine._leave_unannounced,
    # Until the name is settled, what the hub says may be meant for its living holder.
    (State.CLAIMING, ev.Granted): Machine._ignore,
    (State.CLAIMING, ev.CloseAsked): Machine._ignore,
    (State.CLAIMING, ev.KernelPushed): Machine._ignore,
    **{
        (state, event): rule
        for state in (State.IDLE, State.READY, State.MEASURING, State.ENDING)
        for event, rule in (
            (ev.Connected, Machine._reconnected),
            (ev.ClaimSeen, Machine._newcomer_claims),
            (ev.StateSeen, Machine._other_state),
            (ev.Granted, Machine._granted),
            (ev.CloseAsked, Machine._close_asked),
        )
    },
    **{
        (state, event): rule
        for state in (State.READY, State.MEASURING)
        for event, rule in (
            (ev.KernelPushed, Machine._stage),
            (ev.BlobArrived, Machine._blob_arrived),
            (ev.BlobFailed, Machine._blob_failed),
            (ev.Woke, Machine._woke),
        )
    },
    # Without a window, or at its end, blobs that were asked for may still come.
    **{
        (state, event): rule
        for state in (State.IDLE, State.ENDING)
        for event, rule in (
            (ev.KernelPushed, Machine._push_unwelcome),
            (ev.BlobArrived, Machine._ignore),
            (ev.BlobFailed, Machine._ignore),
        )
    },
    (State.IDLE, ev.DrainAsked): Machine._leave,
    (State.IDLE, ev.Woke): Machine._ignore,
    (State.READY, ev.DrainAsked): Machine._leave,
    (State.MEASURING, ev.ProfilingEnded): Machine._measured,
    (State.MEASURING, ev.DrainAsked): Machine._drain_busy,
    (State.ENDING, ev.ProfilingEnded): Machine._measured_ending,
    (State.ENDING, ev.DrainAsked): Machine._drain_busy,
    (State.ENDING, ev.Woke): Machine._woke,
    **{(State.GONE, event): Machine._ignore for event in ev.Event.__subclasses__()},
}
"""What each event does in each state; a pair that is not here cannot happen."""
