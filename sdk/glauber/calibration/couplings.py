"""Protocol "couplings": what programmed couplings really are, each way, and what is there with nothing programmed.

Acquire: a p-bit whose neighbours are all held is a p-bit in a field, and what each neighbour adds is found by holding
them in many patterns, which is a weighing design: every shot says something about every coupling of that p-bit. p-bits
of one colour are measured together, the others hold still. Couplings are programmed at five levels, -1, -1/2, 0, 1/2
and 1 times one small value, so that the argument stays where a p-bit's curve is steep.

Fit: a logistic regression of each p-bit on its neighbours' spins at each level, its readout errors known; then, for
each directed pair, the effect of a spin at the five levels as crosstalk + factor J + bend, the last a V of the level's
half: a non-linearity that is odd, as of an S-shaped DAC.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from glauber.calibration.bench import SATURATED, Bench
from glauber.calibration.record import CouplingCalibration, Measured, PbitCalibration
from glauber.calibration.sigmoid import gain_u_with_known_readings
from glauber.compile.order import adjacency, colours_of
from glauber.errors import CalibrationError
from glauber.model import IsingModel

LEVELS = (-1.0, -0.5, 0.0, 0.5, 1.0)
REACH = 1.2
"""The largest argument that all neighbours together should make."""
LARGEST_REACH = 2.4
"""Beyond this a p-bit's curve is flat most of the time."""
ITERATIONS = 25
SIGNIFICANT = 1e-4

Floats = NDArray[np.float64]


def calibrate_couplings(bench: Bench, pbits: PbitCalibration | None) -> CouplingCalibration:
    """The whole protocol, on the device's own graph.

    Raises:
        CalibrationError: the device has no stated graph, or too coarse couplings.
    """
    topology = bench.device.spec.topology
    if topology is None:
        raise CalibrationError(
            f"{bench.device.spec.name} has no graph of its own, so it has no couplings to measure; leave the"
            " protocol out"
        )
    edges = topology.edges()
    edges = edges[(edges < bench.n_sites).all(axis=1)]
    good = np.ones(bench.n_sites, dtype=bool) if pbits is None else pbits.good
    edges = edges[good[edges].all(axis=1)]
    n = bench.n_sites
    if not len(edges):
        empty = Measured(values=(), uncertainties=())
        return CouplingCalibration(
            pairs=(), factor=empty, crosstalk=empty, bend=empty, p_value=1.0, level=0.0, shots=bench.shots
        )
    start, neighbour = adjacency(n, edges)
    colour = colours_of(n, edges)
    degree = int(np.diff(start).max())
    level = _level(bench, degree)
    gain, offset, wrong_up, wrong_down = _known(pbits, n)
    effect = np.zeros((len(LEVELS), len(neighbour)))
    variance = np.zeros((len(LEVELS), len(neighbour)))
    misfit, degrees, done = 0.0, 0, 0
    rng = np.random.default_rng(2)
    n_colours = int(colour.max()) + 1
    held = np.zeros(len(LEVELS))
    for k, part in enumerate(LEVELS):
        for c in range(n_colours):
            patterns = _patterns(4 * degree, n, rng)
            model = IsingModel(np.zeros(n), edges, np.full(len(edges), part * level))
            # what does not work is not held: its random pattern would be a neighbour's that no fit knows
            ups, shots = _draw(bench, model, patterns, np.flatnonzero((colour != c) & good))
            held[k] = bench.held(model).couplings[0]
            for site in np.flatnonzero(colour == c).tolist():
                row = slice(start[site], start[site + 1])
                if start[site] == start[site + 1] or not good[site]:
                    continue
                spins = patterns[:, neighbour[row]].astype(np.float64)
                design = np.column_stack([np.ones(len(patterns)), spins])
                theta, covariance, chi_square = _logistic(
                    design, ups[:, site], shots, wrong_up[site], wrong_down[site], offset[site]
                )
                scale = gain[site] * bench.beta
                effect[k, row] = theta[1:] / scale
                variance[k, row] = np.diag(covariance)[1:] / scale**2
                misfit += chi_square
                degrees += len(patterns) - design.shape[1]
            done += 1
            bench.report(done / (len(LEVELS) * n_colours), "couplings")
    estimates, errors = _lines(effect, variance, held)
    pairs = tuple((i, int(j)) for i in range(n) for j in neighbour[start[i] : start[i + 1]])
    relative = _relative_gain_u(pbits, pairs)
    factor_u = np.hypot(errors[1], np.abs(estimates[1]) * relative)  # the gain is a divisor of all of them
    return CouplingCalibration(
        pairs=pairs,
        factor=Measured.of(estimates[1], factor_u),
        crosstalk=Measured.of(estimates[0], errors[0]),
        bend=Measured.of(estimates[2], errors[2]),
        p_value=float(chi2.sf(misfit, max(1, degrees))),
        level=float(level),
        shots=bench.shots,
    )


def _level(bench: Bench, degree: int) -> float:
    """The largest of the programmed values; half of it must be a value that the device has, too."""
    level = min(bench.largest_coupling(), REACH / (bench.beta * np.sqrt(degree)) / 2)
    coefficients = bench.device.spec.coefficients
    if coefficients.weight_range is None:
        return float(level)
    code = coefficients.weight_range / max(1, 2 ** ((coefficients.weight_bits or 16) - 1) - 1)
    least = 2 * code
    most = LARGEST_REACH / (bench.beta * np.sqrt(degree))
    if least > min(most, bench.largest_coupling()):
        raise CalibrationError(
            f"{bench.device.spec.name} has couplings in steps of {code:.3g}, too coarse to be measured at beta"
            f" {bench.beta:g} with {degree} neighbours: calibrate at beta {bench.beta * most / least:.2g} or less, or"
            " leave the protocol out"
        )
    return float(max(level, least))


def _known(pbits: PbitCalibration | None, n: int) -> tuple[Floats, Floats, Floats, Floats]:
    if pbits is None:
        return np.ones(n), np.zeros(n), np.zeros(n), np.zeros(n)
    return pbits.gain.array, pbits.offset.array, pbits.up_as_down.array, pbits.down_as_up.array


def _relative_gain_u(pbits: PbitCalibration | None, pairs: tuple[tuple[int, int], ...]) -> Floats:
    if pbits is None:
        return np.zeros(len(pairs))
    first = np.array([i for i, _ in pairs])
    return np.asarray((gain_u_with_known_readings(pbits) / pbits.gain.array)[first])


def _patterns(count: int, n: int, rng: np.random.Generator) -> NDArray[np.int8]:
    """Random spins (count, n), every second row the opposite of the one before, so that offsets drop out."""
    half = rng.choice(np.array([-1, 1], dtype=np.int8), ((count + 1) // 2, n))
    return np.stack([half, -half], axis=1).reshape(-1, n)


def _draw(bench: Bench, model: IsingModel, patterns: NDArray[np.int8], held: NDArray[np.int64]) -> tuple[Floats, float]:
    """(ups of each pattern (n_patterns, n_sites), shots of each)."""
    n_patterns, able = len(patterns), bench.device.spec.capabilities
    copies = max(1, 64 // n_patterns)
    rows = np.repeat(patterns, copies, axis=0)
    shots = max(64, bench.shots // 4)
    if able.clamp:
        clamp = np.zeros(rows.shape, dtype=np.int8)
        clamp[:, held] = rows[:, held]
        result = bench.run(model, chains=len(rows), shots=shots * n_patterns, clamp=clamp)
        counts = (result.spins > 0).sum(axis=1, dtype=np.int64).reshape(n_patterns, copies, -1).sum(axis=1)
        n = result.n_samples * copies
    else:  # fields far beyond all couplings hold as well
        counts, n = np.zeros((n_patterns, model.n_sites), dtype=np.int64), 0
        strength = min(bench.largest_field(), 2 * SATURATED / bench.beta)
        for k, pattern in enumerate(patterns):
            fields = np.zeros(model.n_sites)
            fields[held] = strength * pattern[held]
            result = bench.run(model, shots=shots, fields=fields[None])
            counts[k] = (result.spins > 0).sum(axis=(0, 1))
            n = result.n_samples * result.n_chains
    return counts.astype(np.float64), float(n)


def _logistic(
    design: Floats, ups: Floats, shots: float, wrong_up: float, wrong_down: float, offset: float
) -> tuple[Floats, Floats, float]:
    """Argument = design theta, by maximum likelihood: (theta, covariance, chi-square)."""
    theta = np.zeros(design.shape[1])
    theta[0] = offset
    span = 1 - wrong_up - wrong_down

    def at(theta: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """(probability, its slope, weight, information)."""
        sigma = 1 / (1 + np.exp(-2 * np.clip(design @ theta, -20, 20)))
        p = np.clip(wrong_down + span * sigma, 0.1 / shots, 1 - 0.1 / shots)
        slope = 2 * span * sigma * (1 - sigma)
        weight = shots / (p * (1 - p))
        return p, slope, weight, (design.T * (weight * slope**2)) @ design + 1e-9 * np.eye(design.shape[1])

    for _ in range(ITERATIONS):
        p, slope, weight, information = at(theta)
        step = np.linalg.solve(information, design.T @ (weight * slope * (ups / shots - p)))
        theta = theta + step * min(1.0, 1.0 / max(1e-12, float(np.abs(step).max())))
        if float(np.abs(step).max()) < 1e-9:
            break
    p, _, weight, information = at(theta)
    return (
        theta,
        np.asarray(np.linalg.inv(information), dtype=np.float64),
        float((weight * (ups / shots - p) ** 2).sum()),
    )


def _lines(effect: Floats, variance: Floats, held: Floats) -> tuple[Floats, Floats]:
    """Least squares of effect = crosstalk + factor J + bend v(J) for each pair: estimates and errors, (3, n_pairs).

    v is +1 and -1 at the half levels and 0 at the others.
    """
    half = np.isclose(np.abs(held), 0.5 * np.abs(held).max(), rtol=0.2)
    design = np.column_stack([np.ones(len(held)), held, np.where(half, np.sign(held), 0.0)])
    weight = 1 / np.maximum(variance, 1e-30)
    information = np.einsum("ka,kb,kp->pab", design, design, weight)
    right = np.einsum("ka,kp->pa", design, weight * effect)
    covariance = np.linalg.inv(information)
    estimates = np.einsum("pab,pb->ap", covariance, right)
    return estimates, np.sqrt(np.einsum("paa->ap", covariance))


def crosstalk_matrix(couplings: CouplingCalibration, n: int, beta: float) -> Floats | None:
    """What each p-bit adds to another one's argument with nothing programmed, (n, n); None if it is nothing for sure.

    Nothing: the chi-square of all pairs, or their mean, is what chance gives.
    """
    if not couplings.pairs:
        return None
    x, u = couplings.crosstalk.array, couplings.crosstalk.u
    z = x / np.maximum(u, 1e-12)
    weight = 1 / np.maximum(u, 1e-12) ** 2
    mean_z = abs(float((weight * x).sum())) / float(weight.sum()) ** 0.5
    if chi2.sf(float((z**2).sum()), len(z)) > SIGNIFICANT and mean_z < 4.0:
        return None
    matrix = np.zeros((n, n))
    first, second = np.array(couplings.pairs).T
    matrix[first, second] = beta * x
    return matrix


def rescaled(couplings: CouplingCalibration, old: PbitCalibration, new: PbitCalibration) -> CouplingCalibration:
    """The same couplings where the p-bits' gains turned out to be others, and their uncertainties too."""
    first = np.array([i for i, _ in couplings.pairs])
    ratio = old.gain.array[first] / new.gain.array[first]
    parts = {
        name: Measured.of(getattr(couplings, name).array * ratio, getattr(couplings, name).u * ratio)
        for name in ("factor", "crosstalk", "bend")
    }
    factor = parts["factor"].array
    before, after = (factor * _relative_gain_u(pbits, couplings.pairs) for pbits in (old, new))
    u = np.sqrt(np.maximum(parts["factor"].u ** 2 - before**2, 0.0) + after**2)
    return couplings.model_copy(update={**parts, "factor": Measured.of(factor, u)})
