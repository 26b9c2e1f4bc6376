"""Select: the next candidates of a task."""

from resonator_hub.search.proposal import Proposal, Tried, select

__all__ = ["Proposal", "Tried", "select"]
