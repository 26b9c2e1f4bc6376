"""The check of the guarantees finds what breaks them: a judge who never objects proves nothing."""

from __future__ import annotations

import json

from fakes.guarantees import Books, Evidence, lost_jobs, lost_results, miscounted, overlapping
from fakes.stories import AgentLife, read
from resonator.ids import CandidateId, DeviceId, JobId
from resonator.jobspec import Measure, TargetSpec
from resonator.messages import JobState, JobStatus
from resonator_hub.scheduler.events import JobOrder, JobSubmitted, Measured

BOX, JOB, KERNEL = DeviceId("lab/box"), JobId("j"), CandidateId("j/t0/c0")
ORDER = JobOrder("j", TargetSpec(kind="cpu"), 8, Measure())
MEASURED = Measured(2.0, BOX, 1, JOB, KERNEL, latencies=(1e-3,))


def life(number: int, *told: tuple[float, str, int]) -> AgentLife:
    """A life of a box that told these things, each at a second and of an epoch."""
    lines = [
        json.dumps(
            {
                "timestamp": f"2026-11-21T10:00:{at:04.1f}Z",
                "event": event,
                "epoch": epoch,
                "candidate": KERNEL,
            }
        )
        for at, event, epoch in told
    ]
    return AgentLife(BOX, number, tuple(read("\n".join(lines))))


def books(*journal: object, trials: int = 1, records: int = 1) -> Books:
    status = JobStatus(job=JOB, name="j", state=JobState.SUCCEEDED, trials=trials)
    kept = {KERNEL: MEASURED.latencies} if records else {}
    return Books([JobSubmitted(1.0, JOB, ORDER), *journal], kept, [], {JOB: status}, {JOB: 3.0})


def test_what_is_in_order_is_not_objected_to() -> None:
    own = life(1, (1, "window open", 1), (2, "measured", 1), (3, "window closed", 1), (4, "window open", 2))
    evidence = Evidence([JOB], books(MEASURED), [own, life(2, (6, "window open", 3))])
    assert lost_jobs(evidence, at_rest=True) == []
    assert lost_results(evidence, at_rest=True) == []
    assert miscounted(evidence.books) == []
    assert overlapping(evidence.lives) == []


def test_windows_that_overlap_or_go_back_are_found() -> None:
    assert "while 1 is open" in overlapping([life(1, (1, "window open", 1), (2, "window open", 2))])[0]
    both = [life(1, (1, "window open", 1), (9, "window closed", 1)), life(2, (5, "window open", 2))]
    assert "overlaps" in overlapping(both)[0]
    back = [life(1, (1, "window open", 2), (2, "window closed", 2)), life(2, (5, "window open", 2))]
    assert "no higher epoch" in overlapping(back)[0]
    assert "outside of window 1" in overlapping([life(1, (1, "measured", 1))])[0]


def test_a_job_or_result_that_is_lost_is_found() -> None:
    lost = Evidence([JobId("other")], books(MEASURED), [])
    assert "not in the journal" in lost_jobs(lost, at_rest=True)[0]
    kept = books()
    under_way = Books(kept.journal, {}, [], {}, {})
    told = life(1, (1, "window open", 1), (2, "measured", 1))
    assert "not in the journal" in lost_results(Evidence([JOB], under_way, [told]), at_rest=True)[0]


def test_what_is_counted_twice_or_not_at_all_is_found() -> None:
    assert "never measured" in miscounted(books())[0]
    assert "not on record" in miscounted(books(MEASURED, records=0))[0]
    assert "counts 2 trials, its journal 1" in miscounted(books(MEASURED, trials=2))[0]
    other = Measured(1.5, BOX, 1, JOB, KERNEL, latencies=(5e-3,))
    assert "its first result was" in miscounted(books(other, MEASURED))[0]
