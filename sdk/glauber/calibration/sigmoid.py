"""Protocol "pbits": the gain, the offset and the readout errors of every p-bit, and which of them do not work.

Acquire: p-bits without couplings at arguments 0.5, 1.2 and saturation, of both signs. Near 0.8 a shot says most about
gain and offset together (the D-optimal design of a logistic curve has its two points at probabilities 0.176 and 0.824,
arguments +-0.77); two points around it show a curve that is no tanh; saturation shows what the readout does. Signs are
drawn anew for each p-bit, and every pattern is followed by its opposite, so that what neighbours add by crosstalk
averages out.

Fit: maximum likelihood by Fisher scoring, P(read +1) = d + (1 - u - d) / (1 + exp(-2 (gain a + offset))), u and d the
probabilities of reading +1 as -1 and the other way; uncertainties from the information matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from glauber.calibration.bench import SATURATED, Bench, free
from glauber.calibration.record import Counts, Measured, PbitCalibration, Verdict
from glauber.errors import CalibrationError

LEVELS = (0.5, 1.2, SATURATED)
SHARES = (1.0, 1.0, 0.6)
"""Of the shots."""
PATTERNS = 2
"""Patterns of signs for each level, each with its opposite."""
ITERATIONS = 60
ALIVE = 0.25
"""A p-bit whose reading differs by less than this between both saturations does not work."""
SIGNIFICANT = 1e-3
"""Chi-squares below this widen the uncertainties."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curves:
    """What was counted, each (n_settings, n_sites).

    Attributes:
        arguments: at which the p-bits were.
        ups: how often they were read +1.
        shots: out of how many.
    """

    arguments: Floats
    ups: Floats
    shots: Floats

    def with_crosstalk(self, pbits: PbitCalibration, crosstalk: Floats) -> Curves:
        """The arguments with what neighbours added on average.

        Args:
            pbits: for the readings' errors.
            crosstalk: of the second p-bit on the first one's argument, (n_sites, n_sites).
        """
        read = 2 * self.ups / self.shots - 1
        wrong_up, wrong_down = pbits.up_as_down.array, pbits.down_as_up.array
        true = (read - (wrong_down - wrong_up)) / (1 - wrong_up - wrong_down)
        return replace(self, arguments=self.arguments + true @ crosstalk.T)


def measure(bench: Bench, seed: int = 1) -> Curves:
    """Count all settings."""
    rng = np.random.default_rng(seed)
    largest = bench.beta * bench.largest_field()
    if largest < LEVELS[1]:
        raise CalibrationError(
            f"the largest argument beta h here is {largest:g}; to see a p-bit's curve it must reach {LEVELS[1]}:"
            " calibrate at a larger beta"
        )
    arguments, ups, shots = [], [], []
    settings = len(LEVELS) * PATTERNS * 2
    whole = bench.shots
    for level, share in zip(LEVELS, SHARES, strict=True):
        for _ in range(PATTERNS):
            signs = rng.choice([-1.0, 1.0], bench.n_sites)
            for sign in (1.0, -1.0):
                asked = min(level, largest) * sign * signs / bench.beta
                bench.shots = max(16, int(whole * share / PATTERNS))
                counts, n = bench.ups(asked)
                bench.shots = whole
                arguments.append(bench.beta * bench.held(free(asked)).fields)
                ups.append(counts.astype(np.float64))
                shots.append(np.full(bench.n_sites, float(n)))
                bench.report(len(ups) / settings, "p-bits")
    return Curves(np.array(arguments), np.array(ups), np.array(shots))


def curve(arguments: Floats, theta: Floats) -> tuple[Floats, Floats]:
    """P(read +1), (m, n), and its derivatives, (4, m, n), of arguments (m, n) and gain, offset, u and d (4, n)."""
    gain, offset, up_as_down, down_as_up = theta
    sigma = 1 / (1 + np.exp(-2 * np.clip(gain * arguments + offset, -300, 300)))
    span = 1 - up_as_down - down_as_up
    slope = 2 * span * sigma * (1 - sigma)
    p = down_as_up + span * sigma
    return p, np.stack([slope * arguments, slope, -sigma, 1 - sigma])


def fit(arguments: Floats, ups: Floats, shots: Floats) -> tuple[Floats, Floats, Floats]:
    """(theta, covariance, chi-square by p-bit): (4, n), (4, 4, n), (n,). Only for p-bits that work."""
    n = arguments.shape[1]
    saturated = np.abs(arguments) > 0.8 * np.abs(arguments).max(axis=0)
    high, low = saturated & (arguments > 0), saturated & (arguments < 0)
    wrong_up = ((shots - ups) * high).sum(axis=0) / np.maximum(1, (shots * high).sum(axis=0))
    wrong_down = (ups * low).sum(axis=0) / np.maximum(1, (shots * low).sum(axis=0))
    theta = np.stack([np.ones(n), np.zeros(n), np.minimum(wrong_up, 0.4), np.minimum(wrong_down, 0.4)])
    least = 0.25 / shots.max()  # less than one wrong reading: as good as none
    for _ in range(ITERATIONS):
        p, gradient = curve(arguments, theta)
        p = np.clip(p, least, 1 - least)
        weight = shots / (p * (1 - p))
        score = (gradient * (weight * (ups / shots - p))).sum(axis=1)
        information = np.einsum("amn,bmn,mn->nab", gradient, gradient, weight)
        free = np.ones((4, n), dtype=bool)
        free[2:] = (theta[2:] > 0) | (score[2:] > 0)  # an error probability at 0 that wants to be negative stays
        step = _solved(information, score, free)
        size = np.abs(step[:2]).max(axis=0)
        theta = theta + step * np.minimum(1.0, 0.5 / np.maximum(size, 1e-12))
        theta[2:] = np.clip(theta[2:], 0.0, 0.45)
        if float(np.abs(step).max()) < 1e-10:
            break
    p, gradient = curve(arguments, theta)
    p = np.clip(p, least, 1 - least)
    weight = shots / (p * (1 - p))
    information = np.einsum("amn,bmn,mn->nab", gradient, gradient, weight)
    covariance = np.linalg.pinv(information, hermitian=True).transpose(1, 2, 0)
    return theta, covariance, np.asarray((weight * (ups / shots - p) ** 2).sum(axis=0))


def gain_u_with_known_readings(pbits: PbitCalibration) -> Floats:
    """Standard uncertainty of the gains, (n_sites,), were the readings' errors known without one.

    What is measured through the same readings and divided by the gain, as a coupling is, shares their error with it.
    """
    if pbits.counts is None:
        return pbits.gain.u
    theta = np.stack([each.array for each in (pbits.gain, pbits.offset, pbits.up_as_down, pbits.down_as_up)])
    shots = np.array(pbits.counts.shots, dtype=np.float64)[:, None]
    p, gradient = curve(np.array(pbits.counts.arguments), theta)
    least = 0.25 / shots.max()
    p = np.clip(p, least, 1 - least)
    gain, offset = gradient[:2]
    weight = shots / (p * (1 - p))
    a, b, c = ((weight * x * y).sum(axis=0) for x, y in ((gain, gain), (gain, offset), (offset, offset)))
    wider = max(1.0, pbits.dispersion) if pbits.p_value < SIGNIFICANT else 1.0
    return np.where(pbits.good, np.sqrt(wider * c / np.maximum(a * c - b * b, 1e-30)), 0.0)


def _solved(information: Floats, score: Floats, free: NDArray[np.bool_]) -> Floats:
    """Steps of the parameters that are free, 0 for the others."""
    held = ~free.T
    matrix = information.copy()
    matrix[held[:, :, None] | held[:, None, :]] = 0.0
    matrix += np.where(held, 1.0, 0.0)[:, :, None] * np.eye(4)
    matrix += 1e-12 * np.trace(matrix, axis1=1, axis2=2)[:, None, None] * np.eye(4)
    step = np.linalg.solve(matrix, np.where(held, 0.0, score.T)[:, :, None])[:, :, 0]
    return np.asarray(np.where(held, 0.0, step).T)


def verdicts_of(arguments: Floats, ups: Floats, shots: Floats) -> list[Verdict]:
    """Which p-bits work, by how far apart their readings at both saturations are."""
    saturated = np.abs(arguments) > 0.8 * np.abs(arguments).max(axis=0)
    found: list[Verdict] = []
    for site in range(arguments.shape[1]):
        share = []
        for sign in (1, -1):
            here = saturated[:, site] & (np.sign(arguments[:, site]) == sign)
            share.append(ups[here, site].sum() / shots[here, site].sum())
        if share[0] - share[1] > ALIVE:
            found.append("good")
        elif min(share) > 0.75:
            found.append("stuck up")
        elif max(share) < 0.25:
            found.append("stuck down")
        else:
            found.append("dead")
    return found


def calibrate_pbits(curves: Curves, shots_asked: int) -> PbitCalibration:
    """The fit of all p-bits."""
    arguments, ups, shots = curves.arguments, curves.ups, curves.shots
    verdicts = verdicts_of(arguments, ups, shots)
    good = np.array([verdict == "good" for verdict in verdicts])
    n = arguments.shape[1]
    theta, u = np.tile(np.array([[1.0], [0.0], [0.0], [0.0]]), n), np.zeros((4, n))
    dispersion, p_value = 1.0, 1.0
    if good.any():
        fitted, covariance, chi_square = fit(arguments[:, good], ups[:, good], shots[:, good])
        degrees = (len(arguments) - 4) * int(good.sum())
        dispersion = float(chi_square.sum()) / degrees
        p_value = float(chi2.sf(chi_square.sum(), degrees))
        wider = max(1.0, dispersion) if p_value < SIGNIFICANT else 1.0
        theta[:, good] = fitted
        u[:, good] = np.sqrt(wider * np.maximum(0.0, np.einsum("aan->an", covariance)))
        at_end = shots.max(axis=0) * PATTERNS  # no wrong reading among so many: of the order of one
        u[2:] = np.where(good, np.maximum(u[2:], 1 / at_end), 0.0)
    return PbitCalibration(
        verdicts=tuple(verdicts),
        gain=Measured.of(theta[0], u[0]),
        offset=Measured.of(theta[1], u[1]),
        up_as_down=Measured.of(theta[2], u[2]),
        down_as_up=Measured.of(theta[3], u[3]),
        p_value=p_value,
        dispersion=dispersion,
        levels=LEVELS,
        shots=shots_asked,
        counts=Counts(
            arguments=tuple(tuple(row) for row in arguments.round(6).tolist()),
            ups=tuple(tuple(row) for row in ups.astype(int).tolist()),
            shots=tuple(shots.max(axis=1).astype(int).tolist()),
        ),
    )
