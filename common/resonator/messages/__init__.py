"""Every message on the bus: what it says, who sends it, within which limits.

A message travels in an envelope `{v, id, type, src, seq, reply_to, corr, epoch, body, sig}` (`bus.codec`);
`type` is the class's `wire` name and `body` the fields below. Times are seconds, sizes bytes.
"""

from resonator.messages.base import (
    MAX_BLOB,
    MAX_CHUNK,
    MAX_INLINE,
    MAX_MESSAGE,
    VERSION,
    Count,
    Epoch,
    Identifier,
    Message,
    Part,
    Seconds,
    Size,
    Text,
)
from resonator.messages.blob import BlobAbsent, BlobChunk, BlobRef, BlobRequest
from resonator.messages.box import Conditions, Identity, Offer
from resonator.messages.device import (
    DeviceClaim,
    DeviceState,
    KernelResult,
    Status,
    Telemetry,
    WindowClosed,
    WindowOpened,
    WindowRefused,
)
from resonator.messages.job import (
    Activity,
    BenchRequest,
    DeviceList,
    DeviceQuery,
    DeviceReport,
    HubState,
    JobAccepted,
    JobCancel,
    JobList,
    JobQuery,
    JobState,
    JobStatus,
    JobSubmit,
    Latency,
    Rejected,
    TaskStatus,
)
from resonator.messages.window import Ack, KernelPush, WindowClose, WindowGrant

TYPES: dict[str, type[Message]] = {cls.wire: cls for cls in Message.__subclasses__()}
"""Every message class by its name on the bus."""

__all__ = [
    "MAX_BLOB",
    "MAX_CHUNK",
    "MAX_INLINE",
    "MAX_MESSAGE",
    "TYPES",
    "VERSION",
    "Ack",
    "Activity",
    "BenchRequest",
    "BlobAbsent",
    "BlobChunk",
    "BlobRef",
    "BlobRequest",
    "Conditions",
    "Count",
    "DeviceClaim",
    "DeviceList",
    "DeviceQuery",
    "DeviceReport",
    "DeviceState",
    "Epoch",
    "HubState",
    "Identifier",
    "Identity",
    "JobAccepted",
    "JobCancel",
    "JobList",
    "JobQuery",
    "JobState",
    "JobStatus",
    "JobSubmit",
    "KernelPush",
    "KernelResult",
    "Latency",
    "Message",
    "Offer",
    "Part",
    "Rejected",
    "Seconds",
    "Size",
    "Status",
    "TaskStatus",
    "Telemetry",
    "Text",
    "WindowClose",
    "WindowClosed",
    "WindowGrant",
    "WindowOpened",
    "WindowRefused",
]
