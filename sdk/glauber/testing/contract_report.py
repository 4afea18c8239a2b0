"""What the driver contract found: one result a clause, and the report of them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from glauber.testing.acceptance.report import AcceptanceReport

Outcome = Literal["passed", "failed", "skipped"]


@dataclass
class ClauseResult:
    """What one clause found.

    Attributes:
        name: of the clause.
        checks: what it checks, in a sentence or two.
        outcome: of the check.
        reason: why it failed or was skipped; what it looked at where it passed.
        alpha: of a statistical clause, the probability that a right device fails it; None for an exact one.
        p_value: of a statistical clause: it fails below alpha.
        power: of a statistical clause, the probability that it notices a fault, by fault, for the samples it drew.
        samples: that a statistical clause looked at.
        seconds: that it took.
    """

    name: str
    checks: str
    outcome: Outcome = "passed"
    reason: str = ""
    alpha: float | None = None
    p_value: float | None = None
    power: dict[str, float] = field(default_factory=dict)
    samples: int | None = None
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class ContractReport:
    """What the contract found of one device.

    Attributes:
        address: of the device.
        device: its name.
        spec: (label, text) rows that describe it.
        spec_hash: digest of its description.
        created: ISO 8601, UTC.
        versions: of the software.
        computer: on which it was tested.
        effort: "quick" or "full".
        results: of each clause, in order.
        acceptance: the looks, tests and power table of the clause of this name; None where it did not come so far.
    """

    address: str
    device: str
    spec: Sequence[tuple[str, str]]
    spec_hash: str
    created: str
    versions: dict[str, str]
    computer: str
    effort: str
    results: Sequence[ClauseResult]
    acceptance: AcceptanceReport | None = None

    def _with(self, outcome: Outcome) -> list[ClauseResult]:
        return [result for result in self.results if result.outcome == outcome]

    @property
    def failed(self) -> list[ClauseResult]:
        """Clauses that the device breaks."""
        return self._with("failed")

    @property
    def skipped(self) -> list[ClauseResult]:
        """Clauses that do not apply, each with its reason."""
        return self._with("skipped")

    @property
    def passed(self) -> bool:
        """Whether no clause failed and at least one was looked at."""
        return not self.failed and bool(self._with("passed"))

    @property
    def seconds(self) -> float:
        """All clauses together."""
        return sum(result.seconds for result in self.results)

    @property
    def alpha(self) -> float:
        """The probability, at most, that a right device fails any of the clauses that were run."""
        return sum(result.alpha or 0.0 for result in self.results)

    def __str__(self) -> str:
        counts = f"{len(self._with('passed'))} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"
        return f"{self.address}: {counts} in {self.seconds:.1f} s"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "format": "glauber.conformance",
            "version": 1,
            **{
                name: getattr(self, name)
                for name in ("address", "device", "spec_hash", "created", "computer", "effort")
            },
            "versions": self.versions,
            "spec": [list(row) for row in self.spec],
            "passed": self.passed,
            "alpha": self.alpha,
            "seconds": self.seconds,
            "clauses": [result.as_dict() for result in self.results],
            "acceptance": None if self.acceptance is None else self.acceptance.as_dict(),
        }
