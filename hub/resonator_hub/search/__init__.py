"""Select: the next candidates of a task."""

from resonator_hub.search.proposal import Proposal, select
from resonator_hub.search.tried import Tried

__all__ = ["Proposal", "Tried", "select"]
