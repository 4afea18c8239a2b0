"""For tests, ours and other people's.

exact laws to compare with      ExactLaw, chi_square
what every device must do       DriverContract, run_contract
instances with known answers    tile_planted_2d, tile_planted_3d, wishart, frustrated_loops
faults of machines and links    FaultyDriver, DriverFaults, LinkFaults
serial traffic                  Recorder, Replay
the pytest plug-in              glauber.testing.plugin
"""

from glauber.testing.contract import DriverContract, run_contract
from glauber.testing.contract_report import ClauseResult, ContractReport
from glauber.testing.exact import ExactLaw, chi_square
from glauber.testing.faults import DriverFaults, FaultyDriver
from glauber.testing.link_faults import FaultyTransport, LinkFaults
from glauber.testing.planted import PlantedInstance, frustrated_loops, tile_planted_2d, tile_planted_3d, wishart
from glauber.testing.traffic import Recorder, Replay

__all__ = [
    "ClauseResult",
    "ContractReport",
    "DriverContract",
    "DriverFaults",
    "ExactLaw",
    "FaultyDriver",
    "FaultyTransport",
    "LinkFaults",
    "PlantedInstance",
    "Recorder",
    "Replay",
    "chi_square",
    "frustrated_loops",
    "run_contract",
    "tile_planted_2d",
    "tile_planted_3d",
    "wishart",
]
