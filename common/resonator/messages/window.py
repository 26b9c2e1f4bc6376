"""What the hub tells a device: windows, and kernels to measure in them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import FailFast, Field

from resonator.ids import Name
from resonator.jobspec import Duration, Measure
from resonator.messages.base import (
    Epoch,
    Identifier,
    Message,
)
from resonator.messages.blob import BlobRef
from resonator.tensors import TensorSpec


class WindowGrant(Message):
    """The hub grants a window for `duration` seconds, counted by the device on its own monotonic clock."""

    wire: ClassVar[str] = "window.grant"
    epoch: Epoch
    job: Name
    duration: Duration
    measure: Measure


class WindowClose(Message):
    """The hub ends a window: the current kernel is finished, the staged ones are given up."""

    wire: ClassVar[str] = "window.close"
    epoch: Epoch


class KernelPush(Message):
    """A kernel to stage and measure in window `epoch`.

    A candidate that is slower than `race_s` in all likelihood is reported after a few single runs, or one.
    With `model` the blob is a bundle, and `reference` (npz of `in:NAME` and `out:NAME` arrays) what its
    outputs must be.
    """

    wire: ClassVar[str] = "kernel.push"
    epoch: Epoch
    job: Name
    candidate: Identifier
    blob: BlobRef
    device_kind: Literal["cpu", "cuda"] = "cpu"
    arguments: Annotated[tuple[TensorSpec, ...], FailFast(), Field(max_length=64)] = ()
    race_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    model: bool = False
    reference: BlobRef | None = None


class Ack(Message):
    """The receiver's application has taken these messages for good; the sender may forget them."""

    wire: ClassVar[str] = "ack"
    ids: Annotated[tuple[Identifier, ...], FailFast(), Field(max_length=1000)]
