"""Identifiers on the bus, and the one spelling each of them has."""

from __future__ import annotations

import re
from typing import Annotated, NewType

from pydantic import StringConstraints

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
NAME_RULE = "letters, digits, '.', '_' and '-', at most 63, beginning with a letter or digit"
"""What `NAME_PATTERN` says, for people."""
DIGEST_PATTERN = r"^[0-9a-f]{64}$"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""One level of a topic: a site, device, client, job or hub name."""
Digest = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]
"""SHA-256 in lower-case hexadecimal."""

JobId = NewType("JobId", str)
"""A `Name`, chosen by the submitting client, so that a repeated submission is the same job."""
TaskId = NewType("TaskId", str)
"""`{job}/t{index}`: one distinct operator of a job's model."""
CandidateId = NewType("CandidateId", str)
"""`{task}/c{index}` for a kernel, `{job}/model-{untuned|tuned}` for a whole model."""
DeviceId = NewType("DeviceId", str)
"""`{site}/{device}`, both of them names."""
WindowId = NewType("WindowId", str)
"""`{device id}#{epoch}`."""

_NAME = re.compile(NAME_PATTERN)


def is_name(text: str) -> bool:
    """Whether `text` can be one level of a topic."""
    return _NAME.fullmatch(text) is not None  # `$` alone would let a newline pass


def task_id(job: JobId, index: int) -> TaskId:
    """Name the `index`-th task of a job, counted from 0."""
    return TaskId(f"{job}/t{index}")


def candidate_id(task: TaskId, index: int) -> CandidateId:
    """Name the `index`-th candidate of a task, counted from 0."""
    return CandidateId(f"{task}/c{index}")


def model_id(job: JobId, *, tuned: bool) -> CandidateId:
    """Name a job's whole compiled model, as it is measured on a device."""
    return CandidateId(f"{job}/model-{'tuned' if tuned else 'untuned'}")


def device_id(site: str, device: str) -> DeviceId:
    """Name a device across sites."""
    return DeviceId(f"{site}/{device}")


def site_of(device: DeviceId) -> str:
    """Return the site that a device is at."""
    return device.partition("/")[0]


def window_id(device: DeviceId, epoch: int) -> WindowId:
    """Name a window by its device and epoch."""
    return WindowId(f"{device}#{epoch}")
