"""Every rule of the state machines, in tables keyed by (state, input).

An input is the class of an event from outside, or a `Cue` from within. The outcome is the next state;
`None` means late or repeated: it is dropped and nothing changes. A pair that is in no table cannot happen:
`IllegalTransition`, with the story of the entity.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from resonator_hub.scheduler.events import (
    BuildFailed,
    BundleDelivered,
    CandidatesSelected,
    DeviceDrained,
    DeviceLost,
    DeviceSeen,
    DeviceUndrained,
    Event,
    JobCanceled,
    KernelBuilt,
    Measured,
    ModelCompiled,
    ModelUpdated,
    Stage,
    TasksExtracted,
    WindowClosed,
    WindowOpened,
    WindowRefused,
)


class Cue(Enum):
    """An input from within the scheduler."""

    STARTED = "a device matches"
    BENCHED = "a device matches a job without trials"
    STOPPED = "enough is enough"
    SPENT = "nothing is left to try"
    DRAINED = "the devices are done"
    COMPILED = "the tuned model is compiled"
    VERIFIED = "the model is measured"
    FAILED = "the job cannot go on"
    ASKED = "a compute slot was free"
    PUSHED = "sent to a device"
    RETURNED = "came back without a result"
    DROPPED = "given up"
    SETTLED = "every candidate has its outcome"
    GRANTED = "granted to a job"
    TAKEN_BACK = "asked to close"
    EXPIRED = "the lease is over"
    HIDDEN = "out of sight"
    RESTARTED = "the hub restarted"


class JobPhase(Enum):
    """Where a job is on its way."""

    QUEUED = "queued"
    EXTRACTING = "extracting"
    TUNING = "tuning"
    DRAINING = "draining"
    COMPILING = "compiling"
    VERIFYING = "verifying"
    DELIVERING = "delivering"
    BENCHING = "benching"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class RoundState(Enum):
    """Where a round of a task is on its way."""

    SELECTING = "selecting"
    MEASURING = "measuring"
    LEARNING = "learning"
    COMPLETE = "complete"


class CandidateState(Enum):
    """Where a candidate is on its way; a whole model counts as one, compiling as its building."""

    PROPOSED = "proposed"
    BUILDING = "building"
    READY = "ready"
    PUSHED = "pushed"
    GONE = "gone"


class DevicePhase(Enum):
    """How a device stands to the hub; its health is another matter."""

    OFFLINE = "offline"
    UNKNOWN = "unknown"
    IDLE = "idle"
    RESERVED = "reserved"
    RUNNING = "running"
    CLOSING = "closing"


Input = Cue | type[Event]
State = TypeVar("State", bound=Enum)
Table = Mapping[tuple[State, Input], "State | None"]

_J, _R, _C, _D = JobPhase, RoundState, CandidateState, DevicePhase
_LIVE = (
    _J.QUEUED,
    _J.EXTRACTING,
    _J.TUNING,
    _J.DRAINING,
    _J.COMPILING,
    _J.VERIFYING,
    _J.DELIVERING,
    _J.BENCHING,
)
_EXTRACTED = (_J.TUNING, _J.DRAINING, _J.COMPILING, _J.VERIFYING, _J.DELIVERING)

JOB: Table[JobPhase] = {
    (_J.QUEUED, Cue.STARTED): _J.EXTRACTING,
    (_J.QUEUED, Cue.BENCHED): _J.BENCHING,
    (_J.EXTRACTING, TasksExtracted): _J.TUNING,
    (_J.TUNING, Cue.STOPPED): _J.DRAINING,
    (_J.TUNING, Cue.SPENT): _J.COMPILING,
    (_J.DRAINING, Cue.DRAINED): _J.COMPILING,
    (_J.COMPILING, Cue.COMPILED): _J.VERIFYING,
    (_J.VERIFYING, Cue.VERIFIED): _J.DELIVERING,
    (_J.DELIVERING, BundleDelivered): _J.SUCCEEDED,
    (_J.BENCHING, Cue.VERIFIED): _J.SUCCEEDED,
    **{(phase, Cue.FAILED): _J.FAILED for phase in _LIVE},
    **{(phase, JobCanceled): _J.CANCELED for phase in _LIVE},
    **{(phase, TasksExtracted): None for phase in _EXTRACTED},
}

ROUND: Table[RoundState] = {
    (_R.SELECTING, CandidatesSelected): _R.MEASURING,
    (_R.SELECTING, Cue.DROPPED): _R.COMPLETE,
    (_R.MEASURING, Cue.SETTLED): _R.LEARNING,
    (_R.MEASURING, Cue.DROPPED): _R.COMPLETE,
    (_R.LEARNING, ModelUpdated): _R.COMPLETE,
    (_R.MEASURING, CandidatesSelected): None,
    (_R.LEARNING, CandidatesSelected): None,
    (_R.COMPLETE, CandidatesSelected): None,
    (_R.COMPLETE, ModelUpdated): None,
}

_BUILD_ANSWERS = (KernelBuilt, BuildFailed, ModelCompiled)
_ONCE_BUILT = (_C.READY, _C.PUSHED, _C.GONE)

CANDIDATE: Table[CandidateState] = {
    (_C.PROPOSED, Cue.ASKED): _C.BUILDING,
    (_C.BUILDING, Cue.ASKED): _C.BUILDING,  # again, after a restart of the hub
    (_C.BUILDING, KernelBuilt): _C.READY,
    (_C.BUILDING, ModelCompiled): _C.READY,
    (_C.BUILDING, BuildFailed): _C.GONE,
    (_C.READY, Cue.PUSHED): _C.PUSHED,
    (_C.PUSHED, Cue.RETURNED): _C.READY,
    (_C.READY, Measured): _C.GONE,  # its window had ended, its result was still on the way
    (_C.PUSHED, Measured): _C.GONE,
    (_C.GONE, Measured): None,
    **{(state, Cue.DROPPED): _C.GONE for state in (_C.PROPOSED, _C.BUILDING, _C.READY, _C.PUSHED)},
    **{(state, answer): None for state in _ONCE_BUILT for answer in _BUILD_ANSWERS},
}

_HELD = (_D.RESERVED, _D.RUNNING, _D.CLOSING)
_FREE = (_D.OFFLINE, _D.UNKNOWN, _D.IDLE)

DEVICE: Table[DevicePhase] = {
    (_D.IDLE, Cue.GRANTED): _D.RESERVED,
    (_D.RESERVED, WindowOpened): _D.RUNNING,
    (_D.RESERVED, WindowRefused): _D.IDLE,
    (_D.CLOSING, WindowRefused): _D.IDLE,
    (_D.RUNNING, WindowRefused): None,  # a repeated grant, refused because the first was accepted
    (_D.RUNNING, WindowOpened): None,
    (_D.CLOSING, WindowOpened): None,
    (_D.RESERVED, Cue.TAKEN_BACK): _D.CLOSING,
    (_D.RUNNING, Cue.TAKEN_BACK): _D.CLOSING,
    **{(phase, WindowClosed): _D.IDLE for phase in _HELD},
    **{(phase, Cue.EXPIRED): _D.IDLE for phase in _HELD},
    **{(phase, DeviceSeen): phase for phase in _HELD},
    **{(phase, DeviceSeen): _D.IDLE for phase in _FREE},
    **{(phase, event): None for phase in _FREE for event in (WindowOpened, WindowRefused, WindowClosed)},
    **{(phase, DeviceLost): _D.OFFLINE for phase in (*_FREE, *_HELD)},
    # Whether it is drained is another matter than where it is; its window is then taken back like any other.
    **{(phase, event): phase for phase in DevicePhase for event in (DeviceDrained, DeviceUndrained)},
    **{(phase, Cue.HIDDEN): _D.UNKNOWN for phase in (_D.UNKNOWN, _D.IDLE)},
    **{(phase, Cue.HIDDEN): phase for phase in _HELD},  # it may be measuring still, until the lease is over
    **{(phase, Cue.RESTARTED): _D.UNKNOWN for phase in (_D.UNKNOWN, _D.IDLE, *_HELD)},
    (_D.OFFLINE, Cue.HIDDEN): _D.OFFLINE,
    (_D.OFFLINE, Cue.RESTARTED): _D.OFFLINE,
}

ANSWER: Mapping[Stage, type[Event]] = {
    "extract": TasksExtracted,
    "select": CandidatesSelected,
    "build": KernelBuilt,
    "update": ModelUpdated,
    "compile": ModelCompiled,
    "deliver": BundleDelivered,
}
"""The event that answers each stage: `StageFailed` is legal where that one is."""


class IllegalTransition(Exception):
    """An event that cannot happen in this state; nothing has changed."""

    def __init__(self, entity: str, problem: str, story: list[str]) -> None:
        self.entity = entity
        self.story = story
        lines = "".join(f"\n  {line}" for line in story) or "\n  (nothing yet)"
        super().__init__(f"{entity}: {problem}; its story:{lines}")


def name_of(cause: Input) -> str:
    """Return an input's name for stories."""
    return cause.value if isinstance(cause, Cue) else cause.__name__
