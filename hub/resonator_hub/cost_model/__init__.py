"""Update: measurements become a model that predicts which candidates are fast."""

from resonator_hub.cost_model.boosted import predict, trees, update
from resonator_hub.cost_model.features import pack_features, unpack_features
from resonator_hub.cost_model.memory import Sample

__all__ = ["Sample", "pack_features", "predict", "trees", "unpack_features", "update"]
