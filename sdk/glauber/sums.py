"""Sums whose last bit does not depend on how many of them are asked for at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def weighted_rows(weights: NDArray[np.float64], rows: NDArray[np.int8]) -> NDArray[np.float64]:
    """Sum of weight x row, shape (n, columns) to (columns,), at least two columns.

    The order of additions is that of the rows, whatever the number of columns: an energy must not depend on how many
    states are asked about at once, in its last bit either. A matrix product by BLAS does depend on it.
    """
    return np.asarray(np.einsum("e,ec->c", weights, rows.astype(np.float64)))


def sum_by_row(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of each row, in an order that does not depend on how many rows there are or how they lie in memory."""
    return np.asarray(np.ascontiguousarray(terms).sum(axis=1))
