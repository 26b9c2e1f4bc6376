"""Register tiles: a small design space of our own for convolutions, matrix products and poolings on CPUs."""

from resonator_hub.search.tiles.schedule import schedule
from resonator_hub.search.tiles.space import nearest, neighbours, space_of
from resonator_hub.search.tiles.tile import Tile, tile_of

__all__ = ["Tile", "nearest", "neighbours", "schedule", "space_of", "tile_of"]
