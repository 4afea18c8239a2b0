"""Protocol "temperature": the inverse temperature of each region of a device, by three estimators.

Regions are patches of up to eight p-bits, each with random couplings and fields of its own, all in one program.

- pseudolikelihood: `glauber.diagnostics.beta_by_pseudolikelihood` on the readings as they come, with its interval;
- mean energy: the beta at which the exact mean energy of the patch, by enumeration, is the measured one;
- log ratios: the slope of ln(count) over energy among the states that come often, by weighted least squares.

The last two take wrong readings out where the p-bits have been measured. Three estimators that disagree by more than
their uncertainties mean a law that is no Boltzmann law at any temperature, as gains and offsets make it.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from glauber.calibration.bench import Bench
from glauber.calibration.readout import moments_without_errors, nearest_law, without_errors
from glauber.calibration.record import BetaEstimates, Estimator, PbitCalibration
from glauber.compile.order import adjacency
from glauber.diagnostics import beta_by_pseudolikelihood
from glauber.model import IsingModel

PATCH = 8
REGIONS = 12
LARGEST_ARGUMENT = 0.7
OFTEN = 25
"""States that should come less often are left out of the log ratios: their logarithm is skewed."""
ROUNDS = 8
"""In which the log ratios settle which states those are."""

Floats = NDArray[np.float64]


def regions_of(n_sites: int, edges: NDArray[np.int32], usable: NDArray[np.bool_]) -> list[list[int]]:
    """Disjoint connected patches of up to 8 usable sites, at most 12, spread evenly over the device."""
    start, neighbour = adjacency(n_sites, edges)
    taken = ~usable.copy()
    found: list[list[int]] = []
    for seed in range(n_sites):
        if taken[seed]:
            continue
        patch, front = [seed], [seed]
        while front and len(patch) < PATCH:
            site = front.pop(0)
            for other in neighbour[start[site] : start[site + 1]].tolist():
                if not taken[other] and other not in patch and len(patch) < PATCH:
                    patch.append(other)
                    front.append(other)
        taken[patch] = True
        if len(patch) > 2:
            found.append(sorted(patch))
    if not found:
        return []
    chosen = np.unique(np.linspace(0, len(found) - 1, min(REGIONS, len(found))).round().astype(int))
    return [found[k] for k in chosen]


def calibrate_temperature(bench: Bench, pbits: PbitCalibration | None) -> tuple[BetaEstimates, ...]:
    """The whole protocol; on a device without a graph, rings of eight."""
    n, topology = bench.n_sites, bench.device.spec.topology
    if topology is None:
        ring = [(i, i + 1 - 8 * ((i + 1) % 8 == 0)) for i in range(n - n % 8)]
        edges = np.array(ring or np.zeros((0, 2)), dtype=np.int32).reshape(-1, 2)
    else:
        edges = topology.edges()
        edges = edges[(edges < n).all(axis=1)]
    usable = np.ones(n, dtype=bool) if pbits is None else pbits.good
    regions = regions_of(n, edges, usable)
    if not regions:
        return ()
    home = np.full(n, -1)
    for k, region in enumerate(regions):
        home[region] = k
    inside = edges[(home[edges[:, 0]] >= 0) & (home[edges[:, 0]] == home[edges[:, 1]])]
    rng = np.random.default_rng(3)
    degree = max(1, int(np.bincount(inside.ravel(), minlength=n).max(initial=0)))
    scale = min(bench.largest_coupling(), 2 * LARGEST_ARGUMENT / (bench.beta * math.sqrt(degree)))
    couplings = rng.choice([-1.0, 1.0], len(inside)) * rng.uniform(0.4, 1.0, len(inside)) * scale
    fields = np.where(home >= 0, rng.uniform(-0.3, 0.3, n) * scale, 0.0)
    asked = IsingModel(fields, inside, couplings)
    model = bench.held(asked)
    before, bench.thin = bench.thin, 5 * bench.thin
    result = bench.run(asked, shots=4 * bench.shots)
    bench.thin = before
    bench.report(0.5, "temperature")
    found = []
    for k, region in enumerate(regions):
        place = {site: i for i, site in enumerate(region)}
        mine = home[inside[:, 0]] == k
        patch = IsingModel(
            model.fields[region],
            np.array([(place[i], place[j]) for i, j in inside[mine].tolist()], dtype=np.int32).reshape(-1, 2),
            model.couplings[mine],
        )
        wrong = None
        if pbits is not None:
            wrong = pbits.up_as_down.array[region], pbits.down_as_up.array[region]
        found.append(_estimates(bench.beta, tuple(region), patch, result.spins[:, :, region], wrong))
        bench.report(0.5 + 0.5 * (k + 1) / len(regions), "temperature")
    return tuple(found)


def _estimates(
    asked: float,
    sites: tuple[int, ...],
    patch: IsingModel,
    spins: NDArray[np.int8],
    wrong: tuple[Floats, Floats] | None,
) -> BetaEstimates:
    estimates: dict[Estimator, tuple[float, float]] = {}
    free = np.ones((1, patch.n_sites), dtype=bool)
    by_pseudolikelihood = beta_by_pseudolikelihood(patch, spins, patch.fields[None], free)
    low = high = 0.0
    if by_pseudolikelihood is not None:
        estimates["pseudolikelihood"] = by_pseudolikelihood.value, by_pseudolikelihood.standard_error
        low, high = by_pseudolikelihood.low, by_pseudolikelihood.high
    none = np.zeros(patch.n_sites)
    up_as_down, down_as_up = (none, none) if wrong is None else wrong
    energy = _by_energy(patch, spins, up_as_down, down_as_up)
    if energy is not None:
        estimates["mean energy"] = energy
    ratios = _by_ratios(patch, spins, up_as_down, down_as_up)
    if ratios is not None:
        estimates["log ratios"] = ratios
    return BetaEstimates(sites=sites, beta_asked=asked, estimates=estimates, low=low, high=high)


def _all_energies(patch: IsingModel) -> Floats:
    """Of all states; the first site is the lowest bit of a state's number."""
    states = np.array(list(itertools.product((-1, 1), repeat=patch.n_sites)), dtype=np.int8)[:, ::-1]
    return patch.energies(states)


def _by_energy(patch: IsingModel, spins: NDArray[np.int8], u: Floats, d: Floats) -> tuple[float, float] | None:
    """(beta, standard error): dE/dbeta is minus the variance of the energy."""
    edges = patch.edges
    means = spins.mean(axis=1)
    products = (spins[..., edges[:, 0]] * spins[..., edges[:, 1]]).mean(axis=1)
    true_means, true_products = moments_without_errors(means, products, edges, u, d)
    by_chain = -(true_means @ patch.fields) - true_products @ patch.couplings
    mean, error = float(by_chain.mean()), float(by_chain.std(ddof=1)) / math.sqrt(len(by_chain))
    energies = _all_energies(patch)

    def law(beta: float) -> Floats:
        weight = np.exp(-beta * (energies - energies.min()))
        return np.asarray(weight / weight.sum())

    def gap(beta: float) -> float:
        return float(law(beta) @ energies) - mean

    top = 40.0 / max(1e-12, float(np.ptp(energies)))
    if gap(0.0) <= 0 or gap(top) >= 0:
        return None
    beta: float = brentq(gap, 0.0, top)  # pyright: ignore[reportAssignmentType]  # its other form has full_output
    p = law(beta)
    variance = float(p @ energies**2 - (p @ energies) ** 2)
    return beta, error / variance


def _by_ratios(patch: IsingModel, spins: NDArray[np.int8], u: Floats, d: Floats) -> tuple[float, float] | None:
    """(beta, standard error) of ln(count) = constant - beta E.

    Which states come often, and their weights, are what the fit itself expects: chosen by what was counted, those that
    came more often than they should would be in and their opposites out, and the slope would be too small.
    """
    k = patch.n_sites
    flat = spins.reshape(-1, k) > 0
    counts = np.bincount(flat @ (1 << np.arange(k)), minlength=2**k)
    n = len(flat)
    mended = n * nearest_law(without_errors(counts / n, u, d))
    energies = _all_energies(patch)
    energies = energies - energies.min()
    expected = mended
    found = None
    for _ in range(ROUNDS):
        found = _line(energies, mended, expected)
        if found is None:
            return None
        law = np.exp(found[0] * energies)
        expected = n * law / law.sum()
    return None if found is None else (-found[0], found[1])


def _line(energies: Floats, counts: Floats, expected: Floats) -> tuple[float, float] | None:
    """(slope, standard error) of ln(count) over energy, of states expected often, by weighted least squares."""
    often = expected >= OFTEN
    if often.sum() < 3:
        return None
    energy, weight = energies[often], expected[often]
    centre = float(weight @ energy) / float(weight.sum())
    spread = float(weight @ (energy - centre) ** 2)
    if spread <= 0:
        return None
    logs = np.log(np.maximum(counts[often], 0.5)) + 1 / (2 * weight)  # a logarithm of counts is low by that
    middle = float(weight @ logs) / float(weight.sum())
    slope = float(weight @ ((energy - centre) * (logs - middle))) / spread
    misfit = logs - middle - slope * (energy - centre)
    # a law that is not Boltzmann's scatters around the line by more than its counts do
    wider = max(1.0, float(weight @ misfit**2) / (int(often.sum()) - 2))
    return slope, math.sqrt(wider / spread)
