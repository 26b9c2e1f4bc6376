"""The picture of a job: spans from events, shares of time, and an SVG that is well formed."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from resonator.ids import CandidateId, DeviceId, JobId, TaskId, model_id
from resonator_hub.scheduler.events import (
    CandidatesSelected,
    Event,
    KernelBuilt,
    Measured,
    ModelUpdated,
    TasksExtracted,
    Tick,
)
from resonator_hub.timeline import Span, busy_share, draw, spans

JOB, TASK, DEVICE = JobId("net-1"), TaskId("net-1/t0"), DeviceId("local/<box>")
SVG = "{http://www.w3.org/2000/svg}"


def built(at: float, took_s: float, index: int = 0) -> KernelBuilt:
    return KernelBuilt(at, JOB, CandidateId(f"{TASK}/c{index}"), "aa", 1, took_s)


def measured(at: float, took_s: float, candidate: str = "net-1/t0/c0") -> Measured:
    return Measured(at, DEVICE, 1, JOB, CandidateId(candidate), (0.1,), device_time_s=took_s)


EVENTS: list[Event] = [
    Tick(0.0),
    TasksExtracted(10.0, JOB, (), took_s=5.0),
    CandidatesSelected(14.0, JOB, TASK, 0, (), took_s=4.0),
    built(16.0, 2.0, 0),
    built(16.5, 2.0, 1),
    KernelBuilt(16.0, JobId("other"), CandidateId("other/t0/c0"), "aa", 1, 2.0),
    measured(18.0, 1.5),
    ModelUpdated(19.0, JOB, TASK, 0, took_s=0.5),
    measured(21.0, 2.0, model_id(JOB, tuned=True)),
]


def test_steps_that_overlap_take_slots_of_their_own() -> None:
    found = [(span.resource, span.stage, span.start, span.end) for span in spans(EVENTS, JOB)]

    assert found == [
        ("compute 0", "extract", 5.0, 10.0),
        ("compute 0", "select", 10.0, 14.0),
        ("compute 0", "build", 14.0, 16.0),
        ("compute 0", "update", 18.5, 19.0),
        ("compute 1", "build", 14.5, 16.5),
        (DEVICE, "measure a kernel", 16.5, 18.0),
        (DEVICE, "measure the model", 19.0, 21.0),
    ]


@pytest.mark.parametrize(
    ("start", "end", "share"), [(16.0, 21.0, 0.7), (16.5, 18.0, 1.0), (18.0, 19.0, 0.0), (5.0, 5.0, 0.0)]
)
def test_the_share_of_busy_time_is_within_the_asked_interval(start: float, end: float, share: float) -> None:
    assert busy_share(spans(EVENTS, JOB), DEVICE, start, end) == pytest.approx(share)


def test_time_in_which_spans_overlap_counts_once() -> None:
    timeline = [Span("a", "build", 0.0, 6.0), Span("a", "build", 1.0, 2.0), Span("a", "build", 5.0, 8.0)]

    assert busy_share(timeline, "a", 0.0, 10.0) == pytest.approx(0.8)


def test_the_drawing_has_a_bar_for_each_span_and_a_label_for_each_row() -> None:
    root = ElementTree.fromstring(draw(spans(EVENTS, JOB), "net & more"))

    bars = [bar for bar in root.iter(f"{SVG}rect") if bar.find(f"{SVG}title") is not None]
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert len(bars) == 7
    assert {"net & more", "compute 0", "compute 1", "local/<box>", "select", "0 s", "2 s"} <= texts
    assert all(float(bar.attrib["x"]) + float(bar.attrib["width"]) <= 1200 for bar in bars)


@pytest.mark.parametrize("length", [0.001, 59.0, 3600.0, 1e6])
def test_the_axis_is_readable_whatever_the_length(length: float) -> None:
    root = ElementTree.fromstring(draw([Span("a", "build", 100.0, 100.0 + length)], "t"))

    assert 1 <= len(list(root.iter(f"{SVG}line"))) <= 13


def test_a_job_without_steps_is_an_empty_picture() -> None:
    assert spans(EVENTS, JobId("nobody")) == []
    assert ElementTree.fromstring(draw([], "nothing")).tag == f"{SVG}svg"
