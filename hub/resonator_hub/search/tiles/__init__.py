"""Register tiles: a small design space of our own for convolutions, matrix products and poolings on CPUs."""

from resonator_hub.search.tiles.operator import Operator, understand
from resonator_hub.search.tiles.schedule import schedule
from resonator_hub.search.tiles.space import Machine, machine_of, nearest, neighbours, points
from resonator_hub.search.tiles.tile import Tile, tile_of

__all__ = [
    "Machine",
    "Operator",
    "Tile",
    "machine_of",
    "nearest",
    "neighbours",
    "points",
    "schedule",
    "tile_of",
    "understand",
]
