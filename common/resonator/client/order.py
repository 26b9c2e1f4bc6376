"""What is to be submitted: a job description and the bytes of its model, read from the user's files."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from resonator.errors import InputInvalid
from resonator.ids import JobId, is_name
from resonator.jobspec import MAX_SPEC_BYTES, TuningJob, parse
from resonator.messages import MAX_BLOB

MODEL_SUFFIX = ".onnx"
SPEC_SUFFIXES = (".yaml", ".yml", ".json")
_ID_SIGNS = 8


@dataclass(frozen=True, slots=True)
class Order:
    """A job as written, with where its model is."""

    job: TuningJob
    model: Path


def read_job(path: Path) -> Order:
    """Read a job file; its model's path counts from the file's own folder.

    Raises `InputInvalid` for a file that cannot be read or is no job description.
    """
    job = parse(read_bytes(path, "job description", MAX_SPEC_BYTES))
    return Order(job, path.parent / job.spec.model.onnx)


def read_bytes(path: Path, what: str, most: int = MAX_BLOB) -> bytes:
    """Read a user's file; raises `InputInvalid` when it is not there, empty or beyond `most` bytes."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise InputInvalid(f"{what} {path} is not a file")
        if not 0 < size <= most:
            raise InputInvalid(f"{what} {path} has {size} bytes; 1 to {most} are accepted")
        return path.read_bytes()
    except OSError as error:
        raise InputInvalid(f"{what} {path} cannot be read: {error.strerror}") from error


def new_job_id(name: str) -> JobId:
    """Make an id of a job that people call `name`: `{name}-{8 hex}`."""
    return JobId(f"{name[: 62 - _ID_SIGNS]}-{secrets.token_hex(_ID_SIGNS // 2)}")


def name_for(path: Path) -> str:
    """Make a job's name of a file's: what topics do not allow becomes `-`."""
    signs = (sign if sign.isascii() and (sign.isalnum() or sign in "._-") else "-" for sign in path.stem)
    name = "".join(signs).lstrip("._-")[:50]
    return name if is_name(name) else "job"
