"""The pure scheduler: events in, commands out."""

from resonator_hub.scheduler.knobs import Knobs
from resonator_hub.scheduler.machine import Scheduler
from resonator_hub.scheduler.transitions import IllegalTransition

__all__ = ["IllegalTransition", "Knobs", "Scheduler"]
