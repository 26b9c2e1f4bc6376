"""Expected failures are values, with a kind that says whose fault it is."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from resonator.errors import readable


class Fault(str, Enum):
    """Whose fault a failure is; the kernel's train the cost model, the device's count against a box."""

    KERNEL = "kernel"
    DEVICE = "device"
    BUS = "bus"
    USER = "user"
    HUB = "hub"


class FailureKind(str, Enum):
    """What went wrong."""

    BUILD_ERROR = "BUILD_ERROR"
    KERNEL_CRASH = "KERNEL_CRASH"
    KERNEL_TIMEOUT = "KERNEL_TIMEOUT"
    KERNEL_MEMORY = "KERNEL_MEMORY"
    WRONG_OUTPUT = "WRONG_OUTPUT"
    DEVICE_LOST = "DEVICE_LOST"
    DEVICE_DIRTY = "DEVICE_DIRTY"
    DEVICE_REFUSED = "DEVICE_REFUSED"
    IMPLAUSIBLE = "IMPLAUSIBLE"
    MESSAGE_INVALID = "MESSAGE_INVALID"
    BLOB_CORRUPT = "BLOB_CORRUPT"
    JOB_INVALID = "JOB_INVALID"
    MODEL_INVALID = "MODEL_INVALID"
    NO_MATCHING_DEVICE = "NO_MATCHING_DEVICE"
    QUEUE_EXPIRED = "QUEUE_EXPIRED"
    FORBIDDEN = "FORBIDDEN"
    STAGE_FAILED = "STAGE_FAILED"

    @property
    def fault(self) -> Fault:
        """Whose fault this kind of failure is."""
        return _FAULT[self]


_FAULT = {
    FailureKind.BUILD_ERROR: Fault.KERNEL,
    FailureKind.KERNEL_CRASH: Fault.KERNEL,
    FailureKind.KERNEL_TIMEOUT: Fault.KERNEL,
    FailureKind.KERNEL_MEMORY: Fault.KERNEL,
    FailureKind.WRONG_OUTPUT: Fault.KERNEL,
    FailureKind.DEVICE_LOST: Fault.DEVICE,
    FailureKind.DEVICE_DIRTY: Fault.DEVICE,
    FailureKind.DEVICE_REFUSED: Fault.DEVICE,
    FailureKind.IMPLAUSIBLE: Fault.DEVICE,
    FailureKind.MESSAGE_INVALID: Fault.BUS,
    FailureKind.BLOB_CORRUPT: Fault.BUS,
    FailureKind.JOB_INVALID: Fault.USER,
    FailureKind.MODEL_INVALID: Fault.USER,
    FailureKind.NO_MATCHING_DEVICE: Fault.USER,
    FailureKind.QUEUE_EXPIRED: Fault.USER,
    FailureKind.FORBIDDEN: Fault.USER,
    FailureKind.STAGE_FAILED: Fault.HUB,
}


class Failure(BaseModel):
    """An expected failure: its kind, and one sentence with the particulars."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FailureKind
    detail: Annotated[str, AfterValidator(readable)] = ""

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.detail}" if self.detail else self.kind.value
