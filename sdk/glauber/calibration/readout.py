"""Wrong readings taken out of what was counted: of distributions, and of moments.

With known probabilities u_i of reading +1 as -1 and d_i the other way, independent between p-bits, the law of readings
is the true one times a matrix that is a product over p-bits; its inverse gives the true one back, at the price of more
noise. Single samples cannot be mended.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from glauber.calibration.record import CalibrationRecord
from glauber.errors import CalibrationError, InvalidModelError
from glauber.samples import SampleSet

MAX_SITES = 16

Floats = NDArray[np.float64]


def readout_errors(record: CalibrationRecord, sites: NDArray[np.integer]) -> tuple[Floats, Floats]:
    """(up as down, down as up) of these sites.

    Raises:
        CalibrationError: the record does not have them.
    """
    if record.pbits is None:
        raise CalibrationError(f'calibration {record.id} has no readout errors; calibrate with the protocol "pbits"')
    if len(sites) and int(sites.max()) >= record.n_sites:
        raise CalibrationError(
            f"calibration {record.id} looked at {record.n_sites} p-bits, and site {int(sites.max())} is none of them"
        )
    return record.pbits.up_as_down.array[sites], record.pbits.down_as_up.array[sites]


def distribution(
    samples: SampleSet, record: CalibrationRecord | None = None, sites: NDArray[np.integer] | list[int] | None = None
) -> Floats:
    """The probabilities of all states of some sites, (2^k,), all chains and samples together.

    A state's number has bit k set where the k-th of the sites is +1. With a record, wrong readings are taken out and
    what comes out negative by noise is removed in the way that changes least (Smolin, Gambetta and Smith 2012).

    Raises:
        InvalidModelError: more than 16 sites.
        CalibrationError: the record has no readout errors.
    """
    chosen = np.arange(samples.model.n_sites) if sites is None else np.asarray(sites, dtype=np.int64)
    k = len(chosen)
    if k > MAX_SITES:
        raise InvalidModelError(f"a distribution over {k} sites has 2^{k} states; give at most {MAX_SITES} sites=")
    ups = samples.spins[:, :, chosen].reshape(-1, k) > 0
    counts = np.bincount(ups @ (1 << np.arange(k)), minlength=2**k)
    p = counts / counts.sum()
    return p if record is None else nearest_law(without_errors(p, *readout_errors(record, chosen)))


def without_errors(p: Floats, up_as_down: Floats, down_as_up: Floats) -> Floats:
    """The inverse of the readout's matrix times p; may have negative entries."""
    k = len(up_as_down)
    table = p.reshape((2,) * k)[...] if k else p
    for site in range(k):
        u, d = up_as_down[site], down_as_up[site]
        matrix = np.linalg.inv(np.array([[1 - d, u], [d, 1 - u]]))  # from the true value, down and up
        axis = k - 1 - site  # the first site is the lowest bit
        table = np.moveaxis(np.tensordot(matrix, table, axes=(1, axis)), 0, axis)
    return np.asarray(table.reshape(-1))


def nearest_law(p: Floats) -> Floats:
    """The probabilities nearest to p in the sense of least squares: Euclid's projection on the simplex."""
    descending = np.sort(p)[::-1]
    excess = (np.cumsum(descending) - 1) / np.arange(1, len(p) + 1)
    kept = int(np.flatnonzero(descending > excess)[-1])
    return np.asarray(np.maximum(p - excess[kept], 0.0))


def moments_without_errors(
    means: Floats, products: Floats, edges: NDArray[np.integer], up_as_down: Floats, down_as_up: Floats
) -> tuple[Floats, Floats]:
    """True means <s_i> and products <s_i s_j> over edges from those of readings, (..., n) and (..., m).

    A reading's expectation given the spin is (1 - u - d) s + (d - u).
    """
    scale, shift = 1 - up_as_down - down_as_up, down_as_up - up_as_down
    true = (means - shift) / scale
    a, b = edges[:, 0], edges[:, 1]
    rest = scale[a] * shift[b] * true[..., a] + shift[a] * scale[b] * true[..., b] + shift[a] * shift[b]
    return true, np.asarray((products - rest) / (scale[a] * scale[b]))
