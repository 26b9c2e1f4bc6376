"""The numbers the scheduler goes by; times in seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Knobs:
    """Settings of the scheduler, which say when and where results are obtained, and when enough is enough.

    A round has `batch` candidates, or up to `stretch` times more or less, never below `least_batch`, so that
    its selection takes no more than `search_share` of the work that it makes. `rounds_ahead` rounds may be
    under way for each device of a job, or more where that keeps it from waiting.
    A window lasts `window_s` (a whole model's `model_window_s`), is over for the hub `grace_s` later, may be
    taken away after `quantum_s` and is given up after `linger_s` without work. A device is sent kernels for
    `stage_s` ahead. A kernel is measured at most `attempts` times, a whole model, without which its job
    fails, `model_attempts` times. A device rests `rest_s` after a failure of its own, twice as long for each
    further one in a row up to `longest_rest_s`, and counts as bad from the `strikes`-th on.
    A task is shown as stalled after `stalled_rounds` rounds that gained less than `least_gain`. A job stops
    when its model has not gained that much in half of all its trials, and in those of `quiet_rounds` rounds.
    """

    batch: int = 16
    least_batch: int = 4
    stretch: int = 2
    search_share: float = 0.25
    window_s: float = 60.0
    model_window_s: float = 300.0
    grace_s: float = 5.0
    quantum_s: float = 20.0
    linger_s: float = 2.0
    stage_s: float = 10.0
    attempts: int = 3
    model_attempts: int = 10
    strikes: int = 3
    rest_s: float = 2.0
    longest_rest_s: float = 120.0
    stalled_rounds: int = 3
    quiet_rounds: int = 20
    least_gain: float = 0.01
    rounds_ahead: int = 2
    race: float = 1.5
    tolerance: float = 1e-3
    stories: int = 20_000
    story_lines: int = 40
