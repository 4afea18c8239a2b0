"""For tests, ours and other people's.

exact laws to compare with      ExactLaw, chi_square
what every device must do       DriverContract, run_contract
is this device right            accept
instances with known answers    tile_planted_2d, tile_planted_3d, wishart, frustrated_loops
faults of machines and links    FaultyDriver, DriverFaults, LinkFaults
serial traffic                  Recorder, Replay
instruments that meter a power  KnownPower, Rail, LoopbackInstrument, Ppk2Emulator, RaplTree
the pytest plug-in              glauber.testing.plugin

Names load on first use, so that the plug-in costs nothing to a pytest that does not use it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "AcceptanceReport": "acceptance",
    "ClauseResult": "contract_report",
    "ContractReport": "contract_report",
    "DriverContract": "contract",
    "DriverFaults": "faults",
    "ExactLaw": "exact",
    "FaultyDriver": "faults",
    "FaultyTransport": "link_faults",
    "KnownPower": "loopback",
    "LinkFaults": "link_faults",
    "LoopbackInstrument": "loopback",
    "PlantedInstance": "planted",
    "Ppk2Emulator": "ppk2_emulator",
    "Rail": "loopback",
    "RaplTree": "rapl_tree",
    "Recorder": "traffic",
    "Replay": "traffic",
    "accept": "acceptance",
    "chi_square": "exact",
    "frustrated_loops": "planted",
    "run_contract": "contract",
    "tile_planted_2d": "planted",
    "tile_planted_3d": "planted",
    "wishart": "planted",
}

if TYPE_CHECKING:
    from glauber.testing.acceptance import AcceptanceReport, accept
    from glauber.testing.contract import DriverContract, run_contract
    from glauber.testing.contract_report import ClauseResult, ContractReport
    from glauber.testing.exact import ExactLaw, chi_square
    from glauber.testing.faults import DriverFaults, FaultyDriver
    from glauber.testing.link_faults import FaultyTransport, LinkFaults
    from glauber.testing.loopback import KnownPower, LoopbackInstrument, Rail
    from glauber.testing.planted import PlantedInstance, frustrated_loops, tile_planted_2d, tile_planted_3d, wishart
    from glauber.testing.ppk2_emulator import Ppk2Emulator
    from glauber.testing.rapl_tree import RaplTree
    from glauber.testing.traffic import Recorder, Replay

__all__ = [
    "AcceptanceReport",
    "ClauseResult",
    "ContractReport",
    "DriverContract",
    "DriverFaults",
    "ExactLaw",
    "FaultyDriver",
    "FaultyTransport",
    "KnownPower",
    "LinkFaults",
    "LoopbackInstrument",
    "PlantedInstance",
    "Ppk2Emulator",
    "Rail",
    "RaplTree",
    "Recorder",
    "Replay",
    "accept",
    "chi_square",
    "frustrated_loops",
    "run_contract",
    "tile_planted_2d",
    "tile_planted_3d",
    "wishart",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'glauber.testing' has no attribute {name!r}")
    value = getattr(import_module(f"glauber.testing.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
