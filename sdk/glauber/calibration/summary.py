"""A calibration's numbers as rows of a table for people."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from glauber.calibration.record import CalibrationRecord, Estimator, Measured

BETA_COLUMNS = ("beta", *get_args(Estimator))


def number_rows(record: CalibrationRecord) -> list[tuple[str, str, str, str, str]]:
    """(what, value or mean, spread, standard uncertainty of one, unit) for people; spreads over p-bits or couplings."""
    rows: list[tuple[str, str, str, str, str]] = []

    def add(what: str, measured: Measured, which: NDArray[np.bool_], scale: float, unit: str, digits: int) -> None:
        values, u = scale * measured.array[which], scale * measured.u[which]
        rows.append((what, f"{values.mean():.{digits}f}", f"{values.std():.{digits}f}", f"{np.median(u):.2g}", unit))

    if record.pbits is not None:
        good = record.pbits.good
        rows.append(("p-bits that work", f"{good.sum()} of {len(good)}", "", "", ""))
        if good.any():
            add("gain", record.pbits.gain, good, 1, "1", 3)
            add("offset", record.pbits.offset, good, 1, "1", 3)
            add("+1 read as -1", record.pbits.up_as_down, good, 100, "%", 2)
            add("-1 read as +1", record.pbits.down_as_up, good, 100, "%", 2)
    if record.couplings is not None and record.couplings.pairs:
        every = np.ones(len(record.couplings.pairs), dtype=bool)
        rows.append(("directed couplings", str(len(every)), "", "", ""))
        add("factor", record.couplings.factor, every, 1, "1", 3)
        add("crosstalk", record.couplings.crosstalk, every, 1, "units of J", 4)
        add("bend", record.couplings.bend, every, 1, "units of J", 4)
    if record.memory is not None:
        rows.append(
            ("memory of the noise", f"{record.memory.sweeps:.2f}", "", f"{record.memory.uncertainty:.2g}", "sweeps")
        )
    return rows


def beta_rows(record: CalibrationRecord) -> list[tuple[str, ...]]:
    """(region, beta by each of `BETA_COLUMNS` but the first) for people."""
    return [
        (
            f"{len(region.sites)} sites from {region.sites[0]}",
            *(
                "{:.4f} +- {:.2g}".format(*region.estimates[name]) if name in region.estimates else "-"
                for name in get_args(Estimator)
            ),
        )
        for region in record.temperatures
    ]
