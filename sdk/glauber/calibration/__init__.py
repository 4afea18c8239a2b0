"""What a device really does: protocols that measure it, records of what they found, corrections, and twins.

record.py       CalibrationRecord: numbers with uncertainties, frozen, in one file
bench.py        how protocols draw from a device
sigmoid.py      gain, offset and readout errors of each p-bit; dead and stuck ones
couplings.py    directed couplings, their linearity, crosstalk
memory.py       correlation time of the noise
temperature.py  beta of each region, by three estimators
drift.py        two records beside each other
run.py          all protocols into one record
belief.py       how much of measured numbers to believe
correct.py      weights and fields as they must be loaded
readout.py      wrong readings taken out of distributions and moments
twin.py         a device's description and a record of it, which the simulator opens
twin_check.py   whether a twin does what its device does
history.py      records on disk, and which one is in force
summary.py      a record's numbers as rows of a table
plots.py        a record's numbers as pictures; needs matplotlib
report.py       tables and pictures as one page
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# names load on first use: the fits bring scipy, and a device that is not calibrated needs none of it
_HOME = {
    "PROTOCOLS": "run",
    "CalibrationDiff": "drift",
    "CalibrationHistory": "history",
    "CalibrationRecord": "record",
    "Correction": "correct",
    "CorrectionReport": "correct",
    "Protocol": "run",
    "TwinCheck": "twin_check",
    "TwinSpec": "twin",
    "check_twin": "twin_check",
    "compare_records": "drift",
    "distribution": "readout",
    "moments_without_errors": "readout",
    "run_protocols": "run",
}

if TYPE_CHECKING:
    from glauber.calibration.correct import Correction, CorrectionReport
    from glauber.calibration.drift import CalibrationDiff, compare_records
    from glauber.calibration.history import CalibrationHistory
    from glauber.calibration.readout import distribution, moments_without_errors
    from glauber.calibration.record import CalibrationRecord
    from glauber.calibration.run import PROTOCOLS, Protocol, run_protocols
    from glauber.calibration.twin import TwinSpec
    from glauber.calibration.twin_check import TwinCheck, check_twin

__all__ = [
    "PROTOCOLS",
    "CalibrationDiff",
    "CalibrationHistory",
    "CalibrationRecord",
    "Correction",
    "CorrectionReport",
    "Protocol",
    "TwinCheck",
    "TwinSpec",
    "check_twin",
    "compare_records",
    "distribution",
    "moments_without_errors",
    "run_protocols",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"glauber.calibration.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'glauber.calibration' has no attribute {name!r}")
