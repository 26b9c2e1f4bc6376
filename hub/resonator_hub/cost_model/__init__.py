"""Update: measurements become a model that predicts which candidates are fast."""

from resonator_hub.cost_model.boosted import Sample, predict, update
from resonator_hub.cost_model.features import pack_features, unpack_features

__all__ = ["Sample", "pack_features", "predict", "unpack_features", "update"]
