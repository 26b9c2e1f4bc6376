"""A fleet's authority: it says who belongs to the fleet, and who no longer does."""

from resonator_hub.authority.authority import Authority
from resonator_hub.authority.register import Entry

__all__ = ["Authority", "Entry"]
