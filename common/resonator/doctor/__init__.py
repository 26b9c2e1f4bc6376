"""What is wrong with an installation, and what to do about it: looked at from outside, changing nothing."""

from resonator.doctor.examination import Examination, Where, examine
from resonator.doctor.finding import Finding, failed, ok, warning

__all__ = ["Examination", "Finding", "Where", "examine", "failed", "ok", "warning"]
