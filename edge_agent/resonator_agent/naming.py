"""Who may bear a device's name: two agents of one name must never measure for one device."""

from __future__ import annotations

from dataclasses import dataclass

from resonator.messages import DeviceState

CLAIM_S = 3.0
"""How long a newcomer waits for a living holder of its name to object, in seconds."""


@dataclass(frozen=True)
class Bearer:
    """One life of one agent: `session` grows with every start, `instance` is drawn anew at every start."""

    session: int
    instance: str

    def loses_to_claim(self, instance: str) -> str | None:
        """Say why a newcomer gives up to another newcomer, or None: the lower instance wins."""
        if instance < self.instance:
            return f"another agent of this name started at the same time ({instance})"
        return None

    def loses_to_holder(self, state: DeviceState) -> str | None:
        """Say why a newcomer gives up to a holder's answer, or None when the state is no answer to it."""
        if state.instance != self.instance and state.contested_by == self.instance:
            return f"the name is taken by a living agent ({state.instance}, session {state.session})"
        return None

    def loses_to_newer(self, state: DeviceState) -> str | None:
        """Say why a holder steps down, or None: the newer session wins, then the lower instance."""
        if state.instance == self.instance:
            return None
        if (state.session, self.instance) > (self.session, state.instance):
            return f"a newer agent has taken the name ({state.instance}, session {state.session})"
        return None
