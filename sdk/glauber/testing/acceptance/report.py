"""What an acceptance found: its looks, its verdict, the fault that it suspects, and the power that it had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from glauber.testing.acceptance.spending import Verdict
from glauber.testing.acceptance.statistics import Statistic

OF_NOISE = ("memory", "common noise", "chains")
"""Tests of products of two deviations, which have a mean as well where single ones do: suspected last among equals."""


@dataclass(frozen=True)
class Look:
    """One look, at data that no other look has seen.

    Attributes:
        samples: of each job.
        q: the least p-value times the number of tests.
        reject_at: the largest q that rejects.
        accept_above: the q above which the device is accepted without further looks.
        verdict: of this look.
        statistics: all tests, the least p-value first.
    """

    samples: int
    q: float
    reject_at: float
    accept_above: float
    verdict: Verdict
    statistics: Sequence[Statistic]


@dataclass(frozen=True)
class Power:
    """How surely a fault is found.

    Attributes:
        fault: its name and size.
        power: probability that a device with it is rejected.
        low: lower end of the 99.9 % interval (Clopper and Pearson), where it was measured.
        high: upper end.
        runs: simulated devices with the fault; 0 for the formula.
        source: "formula" (first order, and only the one test that is made for the fault), "simulated" now on this
            device's simulation, or "measured", by benchmarks/acceptance.py for the same jobs.
    """

    fault: str
    power: float
    low: float | None
    high: float | None
    runs: int
    source: Literal["formula", "simulated", "measured"]


@dataclass(frozen=True)
class AcceptanceReport:
    """The result of `accept`.

    Attributes:
        address: of the device.
        device: its name.
        alpha: probability, at most, that a right device is rejected.
        looks: that were taken, in order.
        power: by fault, for the jobs and looks that this device would get.
        notes: what was not or could not be looked at.
        key: digest of jobs, sample sizes and thresholds; power measured with the same key holds here too.
    """

    address: str
    device: str
    alpha: float
    looks: Sequence[Look]
    power: Sequence[Power]
    notes: Sequence[str]
    key: str

    @property
    def accepted(self) -> bool:
        """Whether the device passed."""
        return self.looks[-1].verdict == "accepted"

    @property
    def suspicion(self) -> str:
        """What is most likely wrong with a rejected device, in words; empty for an accepted one."""
        if self.accepted:
            return ""
        tests = self.looks[-1].statistics
        tied = [test for test in tests if test.p_value == tests[0].p_value]
        return min(tied, key=lambda test: test.name in OF_NOISE).suspicion

    @property
    def p_value(self) -> float:
        """The last look's q on the scale of alpha: alpha or less means rejected."""
        last = self.looks[-1]
        return min(1.0, self.alpha * last.q / last.reject_at)

    @property
    def samples(self) -> int:
        """Of each job, all looks together."""
        return sum(look.samples for look in self.looks)

    def __str__(self) -> str:
        looks = f"{len(self.looks)} look{'s' if len(self.looks) > 1 else ''}, {self.samples} samples of each job"
        if self.accepted:
            return f"{self.address}: accepted at alpha {self.alpha:g} after {looks}"
        return f"{self.address}: rejected at alpha {self.alpha:g} after {looks}: {self.suspicion}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "format": "glauber.acceptance",
            "version": 1,
            "accepted": self.accepted,
            "suspicion": self.suspicion,
            **asdict(self),
        }
