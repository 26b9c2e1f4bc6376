"""Profile, the hub's side: kernels go to a device within its credit, results come back once."""

from resonator_hub.measure.measuring import Measuring

__all__ = ["Measuring"]
