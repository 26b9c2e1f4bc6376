"""Devices, their liveness, and who may profile where."""

from resonator_hub.fleet.acks import Acks
from resonator_hub.fleet.links import Links
from resonator_hub.fleet.presence import Presence
from resonator_hub.fleet.registry import Registry
from resonator_hub.fleet.sites import Sites
from resonator_hub.fleet.windows import Windows

__all__ = ["Acks", "Links", "Presence", "Registry", "Sites", "Windows"]
