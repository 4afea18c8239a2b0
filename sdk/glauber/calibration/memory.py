"""Protocol "memory": for how many sweeps the noise of the p-bits remembers.

Acquire: p-bits without couplings or fields, one sample a sweep. Fit: if the noise that decides is an Ornstein-Uhlenbeck
process, a spin's correlation at a lag of k sweeps is (2 / pi) arcsin(exp(-k / tau)) at zero offset (Sheppard's
formula), times a factor for wrong readings; least squares over the lags, uncertainties from the scatter between chains.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from glauber.calibration.bench import Bench, free
from glauber.calibration.record import Measured, MemoryCalibration

LAGS = (1, 2, 3, 5, 8, 13)
SAMPLES = 100
LEAST_RIGHT = 0.5
"""Readings are not taken for worse than this factor on a correlation."""
LEAST_SWEEPS = 0.05
"""Shorter memories than this correlate neighbouring sweeps by less than 1e-8."""


def remembered(lags: NDArray[np.float64], sweeps: float) -> NDArray[np.float64]:
    """A spin's correlation at these lags where its noise has this correlation time, both in sweeps."""
    return np.asarray(2 / np.pi * np.arcsin(np.exp(-lags / sweeps)))


def calibrate_memory(bench: Bench) -> MemoryCalibration:
    """The whole protocol; p-bits that never change say nothing and are left out."""
    chains = max(32, -(-bench.shots // SAMPLES))
    thin, bench.thin = bench.thin, 1
    result = bench.run(free(np.zeros(bench.n_sites)), chains=chains, shots=chains * SAMPLES)
    bench.thin = thin
    spins = result.spins.astype(np.float32)
    moves = spins.std(axis=(0, 1)) > 0.5
    spins = spins[:, :, moves] - spins[:, :, moves].mean(axis=(0, 1))
    bench.report(0.5, "memory")
    found, errors = [], []
    for lag in LAGS:
        power = float((spins**2).mean()) if moves.any() else 1.0
        by_chain = (spins[:, lag:] * spins[:, :-lag]).mean(axis=(1, 2)) / power if moves.any() else np.zeros(chains)
        found.append(float(by_chain.mean()))
        errors.append(float(by_chain.std(ddof=1)) / math.sqrt(chains))
    values, u = np.array(found), np.maximum(np.array(errors), 1e-9)
    lags = np.array(LAGS, dtype=np.float64)

    def misfit(theta: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((theta[1] * remembered(lags, theta[0]) - values) / u)

    sweeps, uncertainty = 0.0, 0.0
    if values[0] > 4 * u[0]:
        guess = -1 / math.log(min(0.999, max(1e-6, math.sin(math.pi / 2 * values[0]))))
        start = [max(2 * LEAST_SWEEPS, guess), 0.98]
        fitted = least_squares(misfit, start, bounds=([LEAST_SWEEPS, LEAST_RIGHT], [np.inf, 1.0]))
        sweeps = float(fitted.x[0])
        uncertainty = math.sqrt(float(np.linalg.pinv(fitted.jac.T @ fitted.jac)[0, 0]))
    if sweeps < 2 * uncertainty or sweeps == 0.0:
        # what a correlation of one standard error at lag 1 would mean
        sweeps = 0.0
        uncertainty = -1 / math.log(min(0.999, max(1e-9, math.sin(math.pi / 2 * float(u[0])))))
    bench.report(1.0, "memory")
    return MemoryCalibration(
        sweeps=sweeps,
        uncertainty=uncertainty,
        lags=LAGS,
        correlation=Measured.of(values, u),
        shots=chains * SAMPLES,
    )
