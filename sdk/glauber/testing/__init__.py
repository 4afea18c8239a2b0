"""For tests, ours and other people's.

exact laws to compare with      ExactLaw, chi_square
what a schedule does to laws    transition_matrix, check_detailed_balance, spectral_gap, kernel_chi_square
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
    "autocorrelation_time": "transition",
    "balance_chi_square": "transition",
    "check_detailed_balance": "transition",
    "chi_square": "exact",
    "colour_matrices": "transition",
    "frustrated_loops": "planted",
    "kernel_chi_square": "transition",
    "run_contract": "contract",
    "spectral_gap": "transition",
    "tile_planted_2d": "planted",
    "tile_planted_3d": "planted",
    "transition_counts": "transition",
    "transition_matrix": "transition",
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
    from glauber.testing.transition import (
        autocorrelation_time,
        balance_chi_square,
        check_detailed_balance,
        colour_matrices,
        kernel_chi_square,
        spectral_gap,
        transition_counts,
        transition_matrix,
    )

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
    "autocorrelation_time",
    "balance_chi_square",
    "check_detailed_balance",
    "chi_square",
    "colour_matrices",
    "frustrated_loops",
    "kernel_chi_square",
    "run_contract",
    "spectral_gap",
    "tile_planted_2d",
    "tile_planted_3d",
    "transition_counts",
    "transition_matrix",
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
