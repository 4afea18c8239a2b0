"""The flaws of a twin: what a calibration measured, as the simulator's chip has it, as far as it is to be believed."""

from __future__ import annotations

import numpy as np
from glauber.calibration import TwinSpec
from glauber.calibration.belief import believed
from glauber.calibration.record import Measured
from glauber.errors import CalibrationError
from numpy.typing import NDArray

from glauber_simulator.flaws import Flaws, Readout

Floats = NDArray[np.float64]


def flaws_of(twin: TwinSpec, draw: int | None = None) -> Flaws:
    """The measured chip; with `draw`, one of those that the measurement does not tell from it, by number.

    Raises:
        CalibrationError: the record says nothing about p-bits.
    """
    record, spec = twin.record, twin.device_spec
    if record.pbits is None:
        raise CalibrationError(f"calibration {record.id} says nothing about p-bits, so there is no twin")
    rng = None if draw is None else np.random.default_rng(draw)
    pbits, n = record.pbits, record.n_sites

    def value(measured: Measured, low: float, high: float) -> Floats:
        values = measured.array
        if rng is not None:
            values = values + measured.u * rng.normal(size=len(values))
        return np.clip(values, low, high)

    verdicts = np.array(pbits.verdicts)
    stuck = np.where(verdicts == "stuck up", 1, np.where(verdicts == "stuck down", -1, 0)).astype(np.int8)
    good = pbits.good
    gain = np.where(good, value(pbits.gain, 0.0, 4.0), 0.0)
    offset = np.where(good, value(pbits.offset, -40.0, 40.0), 0.0)
    wrong_up = np.where(good, value(pbits.up_as_down, 0.0, 0.49), 0.0)
    wrong_down = np.where(good, value(pbits.down_as_up, 0.0, 0.49), 0.0)
    pairs, crosstalk = np.zeros((0, 2), dtype=np.int64), np.zeros((0, 2))
    factors: dict[tuple[int, int], float] = {}
    if record.couplings is not None and record.couplings.pairs:
        measured = record.couplings
        factor = believed(measured.factor, 1.0, rng)
        if factor is not None:
            factors = dict(zip(measured.pairs, factor.tolist(), strict=True))
        crosstalk_here = believed(measured.crosstalk, 0.0, rng)
        if crosstalk_here is not None:
            span = spec.coefficients.weight_range or 1.0
            parts = crosstalk_here * record.device_scale(spec) / span
            by_pair = dict(zip(measured.pairs, parts.tolist(), strict=True))
            # all of the graph's, as the chip itself has: gains make a law depend on the order of updates, and the order
            # goes by the graph
            pairs = spec.topology.edges().astype(np.int64) if spec.topology is not None else pairs
            crosstalk = np.array([(by_pair.get((i, j), 0.0), by_pair.get((j, i), 0.0)) for i, j in pairs.tolist()])
    beyond = max(0, (spec.n_sites or n) - n)  # p-bits that nobody looked at are ideal
    return Flaws(
        gain=np.append(gain, np.ones(beyond)),
        offset=np.append(offset, np.zeros(beyond)),
        stuck=np.append(stuck, np.zeros(beyond, dtype=np.int8)),
        readout=Readout(
            up_as_down=np.append(wrong_up, np.zeros(beyond)), down_as_up=np.append(wrong_down, np.zeros(beyond))
        ),
        pairs=pairs,
        crosstalk=crosstalk,
        coupling_gain=factors,
        memory_sweeps=0.0 if record.memory is None else record.memory.sweeps,
    )
