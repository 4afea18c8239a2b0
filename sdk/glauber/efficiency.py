"""Effective samples per second and per joule, with an uncertainty, and on whose word.

The ESS is itself an estimate. Its variance follows from that of the autocorrelation time, 4 / N (W + 1/2 - tau) tau^2
(U. Wolff, Comput. Phys. Commun. 156, 143, 2004, eq. 42, where tau is 1/2 for independent draws and W the window that
is summed over). W = 5 tau and tau = N / (2 ESS) give (u(ESS) / ESS)^2 = 8 / ESS + 2 / N: on AR(1) chains its root is
0.9 to 1.2 times the scatter of the estimator that is used here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from glauber.energy import EnergyReport


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What effective samples cost.

    Attributes:
        ess: effective samples over all chains, the smaller of energy's and magnetisation's; None where the samples say
            nothing.
        ess_uncertainty: standard uncertainty of it.
        n_samples: kept states, over all chains.
        seconds: that the job ran, by the clock of what ran it, waiting excluded; of a simulator this is the simulator.
        device_seconds: that the described device takes, by its figures; None where they are not published, and for a
            measured report.
        joules: of the energy report; None where unknown.
        joules_uncertainty: standard uncertainty of the joules.
        basis: of the joules: "measured" by a meter, or "modelled" by the device's figures.
        missing: parts that the joules leave out, so that the true ESS per joule is smaller.
    """

    ess: float | None
    ess_uncertainty: float | None
    n_samples: int
    seconds: float
    device_seconds: float | None
    joules: float | None
    joules_uncertainty: float | None
    basis: Literal["measured", "modelled"]
    missing: tuple[str, ...]

    @property
    def ess_per_second(self) -> float | None:
        """Of the clock of what ran the job."""
        return _ratio(self.ess, self.seconds)

    @property
    def ess_per_device_second(self) -> float | None:
        """Of the described device's time, by its figures."""
        return _ratio(self.ess, self.device_seconds)

    @property
    def ess_per_joule(self) -> float | None:
        """Of the joules of the report."""
        return _ratio(self.ess, self.joules)

    @property
    def joules_per_effective_sample(self) -> float | None:
        """The inverse of `ess_per_joule`."""
        return _ratio(self.joules, self.ess)

    @property
    def relative_uncertainty(self) -> float | None:
        """Of `ess_per_joule` and its inverse: that of the ESS and that of the joules, which are independent."""
        if not self.ess or not self.joules or self.ess_uncertainty is None or self.joules_uncertainty is None:
            return None
        return math.hypot(self.ess_uncertainty / self.ess, self.joules_uncertainty / self.joules)

    @property
    def ess_per_joule_uncertainty(self) -> float | None:
        """Standard uncertainty of `ess_per_joule`."""
        return _product(self.ess_per_joule, self.relative_uncertainty)

    @property
    def ess_per_second_uncertainty(self) -> float | None:
        """Standard uncertainty of `ess_per_second`; the clock's own is nothing beside that of the ESS."""
        return _ratio(self.ess_uncertainty, self.seconds)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, the derived figures included."""
        names = ("ess", "ess_uncertainty", "n_samples", "seconds", "device_seconds", "joules", "joules_uncertainty",
                 "basis", "ess_per_second", "ess_per_second_uncertainty", "ess_per_device_second", "ess_per_joule",
                 "ess_per_joule_uncertainty", "joules_per_effective_sample", "relative_uncertainty")  # fmt: skip
        return {name: getattr(self, name) for name in names} | {"missing": list(self.missing)}

    def __str__(self) -> str:
        if self.ess is None:
            return "effective samples: unknown, the samples are too few or constant"
        text = f"ESS {self.ess:.4g} +- {self.ess_uncertainty:.2g}, {self.ess_per_second:.4g} a second"
        if self.ess_per_joule is None:
            return f"{text}; joules not published"
        left_out = f", without {', '.join(self.missing)}" if self.missing else ""
        joule = f"{self.ess_per_joule:.4g} +- {self.ess_per_joule_uncertainty:.2g} a joule"
        return f"{text}; {joule} ({self.basis}{left_out})"


def _ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or not b else a / b


def _product(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a * b


def ess_uncertainty(ess: float, n_samples: int) -> float:
    """Standard uncertainty of an estimated ESS of so many draws; see the module."""
    return ess * math.sqrt(8.0 / ess + 2.0 / n_samples)


def efficiency_of(ess: float | None, report: EnergyReport, seconds: float) -> Efficiency:
    """From an effective sample size, joules and seconds."""
    return Efficiency(
        ess=ess,
        ess_uncertainty=None if ess is None else ess_uncertainty(ess, report.samples),
        n_samples=report.samples,
        seconds=seconds,
        device_seconds=report.seconds if "sample" in report.parts else None,  # by figures, not by a clock
        joules=report.joules,
        joules_uncertainty=report.standard_uncertainty,
        basis=report.basis,
        missing=report.missing,
    )
