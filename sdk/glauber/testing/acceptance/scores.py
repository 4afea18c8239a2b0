"""What samples say of each p-bit and each pair, in sums over groups of samples that are independent of each other.

For samples of the Boltzmann law, with the argument a_i = beta (h_i + sum_j J_ij s_j) of p-bit i,

    E[s_i | all others] = tanh(a_i)    exactly, at any size and temperature,

so r_i = s_i - tanh(a_i) has mean 0 given the others, and so has r_i times anything that does not contain s_i. The
products here are the derivatives of the log pseudolikelihood with respect to what can be wrong, and their information
is what the mean of such a sum gains per unit of it (to first order; 1 - tanh^2 is written v):

    gain of i             r_i a_i                          v_i a_i^2
    offset of i           r_i                              v_i
    coupling of i and j   beta (r_i s_j + r_j s_i)         beta^2 (v_i + v_j)
    all couplings alike   the sum of these over neighbours beta^2 sum_i v_i (sum of s_j over neighbours)^2

Without couplings, the r_i of different sweeps, p-bits and chains are independent of each other as well, and products of
two of them have mean 0.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from glauber.model import IsingModel
from glauber.testing.acceptance.probes import Probe, Probes

Floats = NDArray[np.float64]

GROUPS = 64
"""Groups at least; fewer chains than that are cut into pieces."""
LAGS = 8
"""Sweeps over which a memory of the noise is looked for."""
BLOCK_VALUES = 2**18
"""Numbers worked on at a time."""


@dataclass
class Scores:
    """Sums over each of g groups; n p-bits, m neighbouring pairs.

    Attributes:
        gain: (g, n).
        offset: (g, n).
        driven: of pairs in the jobs that couple them, (g, m).
        bare: of pairs in the jobs that do not, (g, m).
        lags: of all p-bits with themselves, 1, 2, ... sweeps later, in the job without couplings, (g, lags).
        together: of different p-bits in one sweep, summed over all pairs of p-bits, (g,).
        alike: of the same p-bits and sweeps in two chains, (g / 2,); empty where groups are no chains.
        gain_information: (n,), summed over groups, as all information.
        offset_information: (n,).
        driven_information: (m,).
        bare_information: (m,).
        shift_information: of all couplings alike.
        lag_information: of a correlation at lag 1, sum of v_i.
        misread_information: sum of 2 a_i tanh(a_i): what a wrong reading in a hundred takes from the gains, times 100.
        driven_coupling: beta J of pairs in the jobs that couple them, over beta: J as the device holds it, (m,).
    """

    gain: Floats
    offset: Floats
    driven: Floats
    bare: Floats
    lags: Floats
    together: Floats
    alike: Floats
    gain_information: Floats
    offset_information: Floats
    driven_information: Floats
    bare_information: Floats
    shift_information: float
    lag_information: float
    misread_information: float
    driven_coupling: Floats

    def __add__(self, other: Scores) -> Scores:
        """The scores of two jobs, group by group."""
        sums: dict[str, Any] = {
            each.name: _sum(getattr(self, each.name), getattr(other, each.name)) for each in fields(self)
        }
        return Scores(**sums)

    @property
    def n_groups(self) -> int:
        """Independent groups."""
        return len(self.gain)


def _sum(a: Floats | float, b: Floats | float) -> Floats | float:
    """Of two sums, one of which may be of nothing."""
    if np.ndim(a) and np.size(a) != np.size(b):
        return b if np.size(a) == 0 else a
    return a + b


def grouped(states: NDArray[np.int8]) -> NDArray[np.int8]:
    """States (chains, samples, n) in groups (g, samples, n): the chains, or pieces of them where they are few."""
    chains, length, n = states.shape
    pieces = min(length, -(-GROUPS // chains))
    return states[:, : length // pieces * pieces].reshape(chains * pieces, length // pieces, n)


def score(probes: Probes, probe: Probe, held: IsingModel, states: NDArray[np.int8], *, in_order: bool) -> Scores:
    """The scores of one job.

    Args:
        probes: all jobs.
        probe: this one.
        held: its model as the device rounded it.
        states: (chains, samples, n).
        in_order: samples of a chain follow each other by `probe.thin` sweeps; False where each is of a run of its own.
    """
    groups = grouped(states)
    g, length, n = groups.shape
    beta, pairs, sites = probe.beta, probes.neighbours, probes.sites
    matrix, coupling = _couplings(held, pairs)
    is_driven = coupling != 0
    step = 2 * max(1, BLOCK_VALUES // (2 * length * max(n, len(pairs))))  # two chains side by side
    free = not held.n_edges or not is_driven.any()
    n_lags = min(LAGS, length // 2) if free and in_order and probe.thin == 1 else 0
    gain, offset, pair = np.zeros((g, len(sites))), np.zeros((g, len(sites))), np.zeros((g, len(pairs)))
    lags, together = np.zeros((g, n_lags)), np.zeros(g if free else 0)
    alike = np.zeros(g // 2 if free and g == len(states) else 0)
    gain_information, offset_information = np.zeros(len(sites)), np.zeros(len(sites))
    pair_information = np.zeros(len(pairs))
    shift = misread = lag_information = 0.0
    joined, (i, j) = _adjacency(pairs, n), pairs.T
    for start in range(0, g, step):
        block = groups[start : start + step]
        here, shape = slice(start, start + len(block)), (-1, len(block), length)
        s = np.ascontiguousarray(block.reshape(-1, n).T.astype(np.float64))  # (n, groups * samples): sums go along rows
        a = beta * (held.fields[:, None] + matrix @ s)
        t = np.tanh(a)
        r, v = s - t, 1 - t * t
        gain[here] = (r * a).reshape(shape)[sites].sum(axis=2).T
        offset[here] = r.reshape(shape)[sites].sum(axis=2).T
        gain_information += (v * a * a).sum(axis=1)[sites]
        offset_information += v.sum(axis=1)[sites]
        misread += float((2 * a * t)[sites].sum())
        if len(pairs):
            pair[here] = beta * (_products(r[i], s[j], shape) + _products(r[j], s[i], shape)).T
            of_site = v.sum(axis=1)
            pair_information += beta**2 * (of_site[i] + of_site[j])
            shift += beta**2 * float((v * (joined @ s) ** 2).sum())
        if free:
            rest = r.reshape(shape)[sites]
            lag_information += float(v[sites].sum())
            for k in range(n_lags):
                lags[here, k] = np.einsum("ngl,ngl->g", rest[..., k + 1 :], rest[..., : -k - 1])
            together[here] = (rest.sum(axis=0) ** 2 - (rest**2).sum(axis=0)).sum(axis=1)
            if len(alike):
                both = rest[:, : rest.shape[1] // 2 * 2]
                of_two = np.einsum("ngl,ngl->g", both[:, ::2], both[:, 1::2])
                alike[start // 2 : start // 2 + len(of_two)] = of_two
    zero = np.zeros_like(pair)
    return Scores(
        gain,
        offset,
        np.where(is_driven, pair, zero),
        np.where(is_driven, zero, pair),
        lags,
        together,
        alike,
        gain_information,
        offset_information,
        np.where(is_driven, pair_information, 0.0),
        np.where(is_driven, 0.0, pair_information),
        shift,
        lag_information,
        misread,
        coupling,
    )


def _products(a: Floats, b: Floats, shape: tuple[int, int, int]) -> Floats:
    """Products (m, groups * samples), summed over the samples of each group: (m, groups)."""
    return np.asarray(np.einsum("mgl,mgl->mg", a.reshape(shape), b.reshape(shape)))


def _couplings(held: IsingModel, pairs: NDArray[np.int64]) -> tuple[csr_array, Floats]:
    """The matrix of couplings, and those of the pairs."""
    n = held.n_sites
    a, b = held.edges[:, 0].astype(np.int64), held.edges[:, 1].astype(np.int64)
    both = np.concatenate([held.couplings, held.couplings])
    matrix = csr_array((both, (np.concatenate([a, b]), np.concatenate([b, a]))), shape=(n, n))
    known = dict(zip(zip(a.tolist(), b.tolist(), strict=True), held.couplings.tolist(), strict=True))
    return matrix, np.array([known.get((i, j), 0.0) for i, j in pairs.tolist()])


def _adjacency(pairs: NDArray[np.int64], n: int) -> csr_array:
    ends = np.concatenate([pairs[:, 0], pairs[:, 1]]), np.concatenate([pairs[:, 1], pairs[:, 0]])
    return csr_array((np.ones(2 * len(pairs)), ends), shape=(n, n))


def standard_error(sums: Floats) -> Floats:
    """Of the total of sums over independent groups, (g, ...): from how they scatter."""
    return np.asarray(np.sqrt(len(sums)) * sums.std(axis=0, ddof=1))
