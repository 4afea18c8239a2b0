"""Tests of the scores: single directions, many at once, and the worst of many, with what each one suspects.

All use only that groups are independent and alike, and that sums over many samples are nearly normal: how samples of a
group depend on each other does not matter. `tests/sdk/test_acceptance.py` and `benchmarks/acceptance.py` hold p-values
against uniform ones.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.stats import f as fisher
from scipy.stats import ncf, ncx2
from scipy.stats import t as student

from glauber.testing.acceptance.probes import Probes
from glauber.testing.acceptance.scores import Floats, Scores, standard_error

GROUPS_PER_DIRECTION = 4
"""Of Hotelling's test: its covariance is estimated, and with fewer groups than this most of its power is lost."""


@dataclass(frozen=True)
class Statistic:
    """One test at one look.

    Attributes:
        name: of the test.
        p_value: probability of as much under the programmed law.
        found: the estimate, in words.
        suspicion: what a small p-value most likely means.
    """

    name: str
    p_value: float
    found: str
    suspicion: str


def direction(sums: Floats, *, upper: bool = False) -> float:
    """Student's test that sums over groups, (g,), have mean 0; `upper`: only a positive mean counts."""
    t = float(_t_values(sums[:, None])[0])
    return float(student.sf(t if upper else abs(t), len(sums) - 1)) * (1 if upper else 2)


def worst(sums: Floats) -> tuple[int, float]:
    """Which of many directions, (g, d), is the farthest from mean 0, and the p-value of that among so many."""
    t = np.abs(_t_values(sums))
    at = int(t.argmax())
    return at, min(1.0, 2 * float(student.sf(t[at], len(sums) - 1)) * len(t))


def _t_values(sums: Floats) -> Floats:
    total, error = sums.sum(axis=0), standard_error(sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(total == 0, 0.0, total / error))  # all groups alike, and not 0: infinite


def many(sums: Floats) -> float:
    """Hotelling's test that all of many directions, (g, d), have mean 0.

    Where there are fewer than GROUPS_PER_DIRECTION groups for each, sums of them with random but fixed signs stand in
    for them, which keep their share of a fault that is spread over all.
    """
    spread = sums.std(axis=0)
    sums = sums[:, spread > 1e-12 * np.abs(sums).max(axis=0, initial=0.0)]  # what never varies, `worst` finds
    g, d = sums.shape
    most = max(1, g // GROUPS_PER_DIRECTION)
    if d == 0:
        return 1.0
    scaled = sums / sums.std(axis=0)
    if d > most:
        signs = np.random.default_rng(31).choice([-1.0, 1.0], (d, most))
        scaled, d = scaled @ signs, most
    mean, covariance = scaled.mean(axis=0), np.atleast_2d(np.cov(scaled, rowvar=False))
    t2 = g * float(mean @ np.linalg.lstsq(covariance, mean, rcond=1e-10)[0])
    return float(fisher.sf((g - d) / (d * (g - 1)) * t2, d, g - d))


def many_power(distance: float, d: int, g: int, threshold: float) -> float:
    """The probability that `many` is below a threshold, `distance` being the squared fault in standard errors.

    With d = 1 that of `direction` and, with a share of the threshold, of `worst`. Noncentral F; where that is too far
    out for its series, noncentral chi-square.
    """
    most = max(1, g // GROUPS_PER_DIRECTION)
    if d > most:
        distance, d = distance * most / d, most
    if distance <= 0:
        return threshold
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        limit = float(fisher.isf(threshold, d, g - d))
        power = float(ncf.sf(limit, d, g - d, distance)) if distance < 1e4 else float("nan")
        if not 0 <= power <= 1:
            power = float(ncx2.sf(limit * d, d, distance)) if distance < 1e5 else 1.0
    return power


def statistics(probes: Probes, scores: Scores) -> list[Statistic]:
    """All tests that the scores allow; those of which a device has nothing are left out.

    The most special ones come first, which counts where faults are so gross that several p-values are 0.
    """
    return [
        *_of_noise(scores),
        *_of_couplings(probes, scores),
        *_of_neighbours(probes, scores),
        *_of_gains(probes, scores),
        *_of_offsets(probes, scores),
    ]


def _spread(sums: Floats, information: Floats) -> float:
    """The spread of a parameter over sites or pairs beyond what chance makes of it."""
    change = sums.sum(axis=0) / information
    return float(np.sqrt(max(0.0, float((change**2 - (standard_error(sums) / information) ** 2).mean()))))


def _of_gains(probes: Probes, scores: Scores) -> list[Statistic]:
    gain, information = scores.gain, scores.gain_information
    mean = gain.sum() / information.sum()
    at, p_worst = worst(gain)
    site, its = int(probes.sites[at]), 1 + gain[:, at].sum() / information[at]
    spread = _spread(gain, information)
    low = "" if mean > 0 else ", or readings are wrong at random"
    return [
        Statistic("temperature", direction(gain.sum(axis=1)), f"{mean:+.1%}", f"beta is off by about {mean:+.1%}{low}"),
        Statistic(
            "gains", many(gain), f"spread {spread:.1%}", f"gains differ from p-bit to p-bit, by about {spread:.1%}"
        ),
        Statistic(
            "worst gain",
            p_worst,
            f"{its:.2f} at p-bit {site}",
            f"p-bit {site} answers with {its:.2f} of its gain" + (": it is dead or stuck" if its < 0.5 else ""),
        ),
    ]


def _of_offsets(probes: Probes, scores: Scores) -> list[Statistic]:
    offset, information = scores.offset, scores.offset_information
    mean = offset.sum() / information.sum()
    at, p_worst = worst(offset)
    site, its = int(probes.sites[at]), offset[:, at].sum() / information[at]
    spread = _spread(offset, information)
    return [
        Statistic("bias", direction(offset.sum(axis=1)), f"{mean:+.3f}", f"all p-bits lean by about {mean:+.3f}"),
        Statistic("offsets", many(offset), f"spread {spread:.3f}", f"p-bits have offsets of about {spread:.3f}"),
        Statistic("worst offset", p_worst, f"{its:+.3f} at p-bit {site}", f"p-bit {site} leans by about {its:+.3f}"),
    ]


def _of_couplings(probes: Probes, scores: Scores) -> list[Statistic]:
    chosen = np.flatnonzero(scores.driven_information > 0)
    if not len(chosen):
        return []
    driven, information, J = scores.driven[:, chosen], scores.driven_information[chosen], scores.driven_coupling[chosen]
    change = (driven @ J).sum() / (information @ J**2)
    at, p_worst = worst(driven)
    i, j = probes.neighbours[chosen[at]].tolist()
    part = 1 + driven[:, at].sum() / information[at] / J[at]
    spread = _spread(driven, information) / np.abs(J).max()
    return [
        Statistic(
            "couplings",
            many(driven),
            f"spread {spread:.1%} of the largest",
            f"couplings are not those programmed, by about {spread:.0%} of the largest: DACs too coarse, or mismatch",
        ),
        Statistic(
            "size of couplings", direction(driven @ J), f"{change:+.1%}", f"couplings are off by about {change:+.1%}"
        ),
        Statistic(
            "worst coupling",
            p_worst,
            f"{part:.2f} of {i}-{j}",
            f"the coupling {i}-{j} has {part:.2f} of what was programmed" + (": dropped" if abs(part) < 0.5 else ""),
        ),
    ]


def _of_neighbours(probes: Probes, scores: Scores) -> list[Statistic]:
    if not len(probes.neighbours):
        return []
    bare, information = scores.bare, scores.bare_information
    shift = (bare + scores.driven).sum() / scores.shift_information
    at, p_worst = worst(bare)
    i, j = probes.neighbours[at].tolist()
    spread = _spread(bare, information)
    its = bare[:, at].sum() / information[at]
    return [
        Statistic(
            "crosstalk",
            direction((bare + scores.driven).sum(axis=1)),
            f"{shift:+.4f}",
            f"all neighbours on the chip are coupled by about {shift:+.4f} more than programmed",
        ),
        Statistic(
            "neighbours", many(bare), f"spread {spread:.4f}", f"pairs that are not coupled are, by about {spread:.4f}"
        ),
        Statistic(
            "worst neighbours",
            p_worst,
            f"{its:+.3f} of {i}-{j}",
            f"{i} and {j} are not coupled and act as by {its:+.3f}",
        ),
    ]


def _of_noise(scores: Scores) -> list[Statistic]:
    found = []
    if scores.lags.shape[1]:
        rate = float(scores.lags[:, 0].sum()) / max(scores.lag_information, 1e-300)
        found.append(
            Statistic(
                "memory",
                many(scores.lags),
                f"{rate:+.3f} after a sweep",
                f"the noise remembers: {rate:+.3f} of a decision is in that of the next sweep",
            )
        )
    if len(scores.together):
        found.append(
            Statistic(
                "common noise", direction(scores.together, upper=True), "", "p-bits share noise (supply or generator)"
            )
        )
    if len(scores.alike):
        found.append(Statistic("chains", direction(scores.alike), "", "chains share their random numbers"))
    return found
