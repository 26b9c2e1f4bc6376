"""A small model, and the jobs that tests submit with it."""

from __future__ import annotations

import zlib

import small_models
from resonator.bus.blobs import digest_of
from resonator.jobspec import JobBody, Metadata, ModelSpec, TargetSpec, TuningJob
from resonator.messages import BlobRef

MODEL = small_models.perceptron()


def spec(**body: object) -> TuningJob:
    """A job for any processor."""
    described = JobBody.model_validate(
        {"model": ModelSpec(onnx="m.onnx"), "target": TargetSpec(kind="cpu"), **body}
    )
    return TuningJob(metadata=Metadata(name="small"), spec=described)


def carried(data: bytes) -> BlobRef:
    """Bytes that ride along."""
    return BlobRef(digest=digest_of(data), size=len(data), data=zlib.compress(data))
