"""Joules of one update, one write, one read and one idle second, from measured runs of different mix.

Each run's joules are E = sum of count x coefficient. Some errors are a meter's own and the same in all of its runs: its
gain is an unknown factor, its offset an unknown power. They enter as common terms: generalised least squares with
V = diag(u^2) + sum over such errors of w w^T, where u are the runs' own uncertainties and w what a common error adds to
each run. One that is proportional to the joules is taken of the fitted ones: of the measured ones it would pull the fit
towards small readings (Peelle's puzzle; D'Agostini, Nucl. Instrum. Methods A 346, 306, 1994).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glauber.energy import RUN_LINES, EnergyReport
from glauber.errors import InvalidModelError, MeteringError
from glauber.samples import SampleSet
from glauber.spec import Boundary, Quantity

TERMS = {"updates": "J", "nodes_written": "J", "nodes_read": "J", "seconds": "W"}
"""What joules are regressed on, with the unit of the coefficient."""
ADVICE = {
    "updates": "a run with more sweeps for each kept sample (sweeps_per_sample), and one with fewer",
    "nodes_written": "a run that loads new weights (another model just before it), and one that finds them loaded",
    "nodes_read": 'a run that keeps all its samples, and one of as many sweeps that keeps few (or observe="last")',
    "seconds": "a run that takes longer for the same operations (slower clock, fewer threads), or a wait at rest",
}
MAX_CONDITION = 1000.0
"""Of the design, its rows divided by their uncertainties and its columns by their lengths."""
ROUNDS = 8
"""Of refining the fitted joules in V, from a fit without common errors."""


@dataclass(frozen=True, slots=True, eq=False)
class EnergyCoefficients:
    """What each operation costs, as runs tell.

    Attributes:
        values: by term: updates, nodes_written, nodes_read in J each, seconds in W; with standard uncertainties.
        covariance: of the values in their order, errors that runs share included; (n_terms, n_terms).
        chi_square: of the fit; about `degrees_of_freedom` where the stated uncertainties are right.
        degrees_of_freedom: runs less terms.
        p_value: of a chi-square as large or larger; a small one says that the terms do not explain the joules.
        condition: of the scaled design, 1 for runs that tell the terms apart perfectly.
        boundary: of the meters.
        meters: their names.
    """

    values: dict[str, Quantity]
    covariance: NDArray[np.float64]
    chi_square: float
    degrees_of_freedom: int
    p_value: float
    condition: float
    boundary: Boundary | None
    meters: tuple[str, ...]

    @property
    def correlation(self) -> NDArray[np.float64]:
        """Correlations of the values, (n_terms, n_terms)."""
        u = np.sqrt(np.diag(self.covariance))
        return np.asarray(self.covariance / np.outer(u, u))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "values": {name: value.model_dump() for name, value in self.values.items()},
            "covariance": self.covariance.tolist(),
            "chi_square": self.chi_square,
            "degrees_of_freedom": self.degrees_of_freedom,
            "p_value": self.p_value,
            "condition": self.condition,
            "boundary": self.boundary,
            "meters": list(self.meters),
        }

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.values.items()]
        fit = f"chi-square {self.chi_square:.3g} of {self.degrees_of_freedom} degrees of freedom, p {self.p_value:.3g}"
        lines.append(f"{fit}; condition {self.condition:.3g}; {', '.join(self.meters)}, {self.boundary} boundary")
        if self.p_value < 0.001:
            lines.append("! these terms do not explain the joules within their uncertainties")
        return "\n".join(lines)


def regress_energy(
    results: Sequence[SampleSet | EnergyReport], *, terms: Sequence[str] = tuple(TERMS)
) -> EnergyCoefficients:
    """What an update, a write, a read and an idle second cost, by least squares over measured runs.

    Args:
        results: of runs with different mixes of operations, each measured by a meter at the same boundary.
        terms: what to regress on; leave one out that no run does.

    Raises:
        InvalidModelError: unknown terms, or results without a measurement or without counts of operations.
        MeteringError: the runs cannot tell the terms apart; says which, and what runs to add.
    """
    terms = tuple(terms)
    unknown = [term for term in terms if term not in TERMS]
    if unknown or not terms or len(set(terms)) < len(terms):
        raise InvalidModelError(f"terms are {list(terms)}; choose among {', '.join(TERMS)}, each once")
    reports = [result.energy_report if isinstance(result, SampleSet) else result for result in results]
    boundary = _check(reports)
    design = np.array([[_count(report, term) for term in terms] for report in reports], dtype=np.float64)
    joules = np.array([report.joules for report in reports], dtype=np.float64)
    alone = np.array([_own_uncertainty(report) for report in reports])
    condition = _check_design(design, alone, terms)
    lengths = np.linalg.norm(design, axis=0)
    scaled = design / lengths
    variance, shared = np.diag(alone**2), _shared_errors(reports)
    found, spread = _least_squares(scaled, joules, variance)
    for _ in range(ROUNDS):
        fitted = scaled @ found
        common = [w * (fitted / joules if proportional else 1.0) for w, proportional in shared]
        variance = np.diag(alone**2) + np.sum([np.outer(w, w) for w in common], axis=0)
        found, spread = _least_squares(scaled, joules, variance)
    covariance, fitted = spread / np.outer(lengths, lengths), scaled @ found
    left = joules - fitted
    chi_square, freedom = float(left @ np.linalg.solve(variance, left)), len(joules) - len(terms)
    meters = tuple(dict.fromkeys(report.meter or "" for report in reports))
    values = {
        term: Quantity(
            value=float(found[k] / lengths[k]),
            unit=TERMS[term],
            standard_uncertainty=math.sqrt(covariance[k, k]),
            provenance="measured",
            source=f"least squares over {len(reports)} runs on {', '.join(terms)}; {', '.join(meters)}",
            boundary=boundary,
        )
        for k, term in enumerate(terms)
    }
    from scipy.stats import chi2  # imported late: it takes long

    p_value = float(chi2.sf(chi_square, freedom))
    return EnergyCoefficients(values, covariance, chi_square, freedom, p_value, condition, boundary, meters)


def _least_squares(
    design: NDArray[np.float64], joules: NDArray[np.float64], variance: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients and their covariance, generalised least squares."""
    weighted = np.linalg.solve(variance, design)
    covariance = np.linalg.inv(design.T @ weighted)
    return np.asarray(covariance @ (weighted.T @ joules)), np.asarray(covariance, dtype=np.float64)


def _check(reports: Sequence[EnergyReport]) -> Boundary | None:
    """What can be regressed on; the common boundary."""
    for k, report in enumerate(reports):
        if not isinstance(report, EnergyReport):
            raise InvalidModelError(f"result {k} is a {type(report).__name__}, not a SampleSet or an EnergyReport")
        if report.basis != "measured":
            why = f": {report.not_measured}" if report.not_measured else ""
            raise InvalidModelError(
                f"result {k} was not measured{why}; modelled joules would only give the device's figures back."
                " Run on a device with a meter"
            )
        if report.operations is None:
            raise InvalidModelError(f"result {k} was stored before operations were counted; run the job again")
    boundaries: list[Boundary | None] = list(dict.fromkeys(report.boundary for report in reports))
    if len(boundaries) > 1:
        raise InvalidModelError(
            f"the runs were measured at different boundaries ({', '.join(map(str, boundaries))}), whose idle and update"
            " are not the same; regress those of each boundary alone"
        )
    return boundaries[0] if boundaries else None


def _count(report: EnergyReport, term: str) -> float:
    return float((report.seconds or 0.0) if term == "seconds" else getattr(report.operations, term))


def _own_uncertainty(report: EnergyReport) -> float:
    """Of the run's joules, by the lines that are of this run alone."""
    u = math.sqrt(sum(line.joules**2 for line in report.budget if line.name in RUN_LINES))
    if u > 0:
        return u
    raise InvalidModelError(
        "a measurement without any uncertainty of its own has infinite weight; the budget needs lines of its own"
    )


def _shared_errors(reports: Sequence[EnergyReport]) -> list[tuple[NDArray[np.float64], bool]]:
    """What each error that a meter's runs share adds to their joules, and whether it is proportional to them.

    Runs whose meter is not known to be the same one have errors of their own.
    """
    found: dict[tuple[str | int, str], NDArray[np.float64]] = {}
    for k, report in enumerate(reports):
        for line in report.budget:
            if line.name not in RUN_LINES:
                key = (report.meter_identity or k, line.name)
                found.setdefault(key, np.zeros(len(reports)))[k] = line.joules
    joules = np.array([report.joules for report in reports])
    shares = [(w / joules)[w > 0] for w in found.values()]
    return [
        (w, bool(share.size) and float(np.ptp(share)) <= 1e-6 * float(share.max()))
        for w, share in zip(found.values(), shares, strict=True)
    ]


def _check_design(design: NDArray[np.float64], alone: NDArray[np.float64], terms: tuple[str, ...]) -> float:
    """The condition number of a design that can tell its terms apart.

    Raises:
        MeteringError: it cannot.
    """
    n = len(terms)
    if len(design) <= n:
        raise MeteringError(
            f"{len(design)} runs cannot give {n} coefficients and a test of the fit; {n + 1} of different mix are the"
            f" least. Add {'; '.join(ADVICE[term] for term in terms)}"
        )
    never = [term for term, column in zip(terms, design.T, strict=True) if not column.any()]
    if never:
        raise MeteringError(
            f"no run has any {', '.join(never)}, so what they cost is unknown. Add"
            f" {'; '.join(ADVICE[term] for term in never)}; or leave them out of terms"
        )
    rows = design / alone[:, None]
    _, sizes, directions = np.linalg.svd(rows / np.linalg.norm(rows, axis=0), full_matrices=False)
    condition = math.inf if sizes[-1] < 1e-12 * sizes[0] else float(sizes[0] / sizes[-1])
    if condition > MAX_CONDITION:
        mixed = [term for term, share in zip(terms, directions[-1], strict=True) if abs(share) > 0.1]
        raise MeteringError(
            f"the runs cannot tell {' and '.join(mixed)} apart: they grow together in all of them (condition"
            f" {condition:.3g}, at most {MAX_CONDITION:g}). Add {'; '.join(ADVICE[term] for term in mixed)}"
        )
    return condition
