"""3x3 convolutions by Winograd's minimal filtering, with 2.25 to 4 times fewer multiplications.

After Lavin and Gray, "Fast algorithms for convolutional neural networks", 2015: tiles of the input are
transformed, multiplied with transformed weights, which is one matrix product for each place in the tile, and
transformed back.
"""

from resonator_hub.frontends.winograd.rewrite import minimal_filtering
from resonator_hub.frontends.winograd.scheme import F2, F4, Scheme, weights

__all__ = ["F2", "F4", "Scheme", "minimal_filtering", "weights"]
