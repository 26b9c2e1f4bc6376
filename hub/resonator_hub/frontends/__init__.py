"""Model files become tasks."""

from resonator_hub.frontends.model import Extraction, ModelCard, ModelInvalid, Workload

__all__ = ["Extraction", "ModelCard", "ModelInvalid", "Workload"]
