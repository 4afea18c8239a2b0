"""For tests, ours and other people's: exact laws to compare with, instances with known answers, the pytest plug-in."""

from glauber.testing.exact import ExactLaw, chi_square
from glauber.testing.planted import PlantedInstance, frustrated_loops, tile_planted_2d, tile_planted_3d, wishart

__all__ = [
    "ExactLaw",
    "PlantedInstance",
    "chi_square",
    "frustrated_loops",
    "tile_planted_2d",
    "tile_planted_3d",
    "wishart",
]
