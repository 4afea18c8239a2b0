"""The books of a sampler: jobs, samples and joules."""

from __future__ import annotations

from dataclasses import dataclass, field

from glauber.samples import SampleSet


@dataclass
class Usage:
    """What a sampler has used so far.

    Attributes:
        jobs: device jobs.
        samples: states kept, over all chains.
        updates: p-bit updates.
        seconds: of the jobs on this computer's clock.
        joules: sum over the jobs, None as long as no job had a figure.
        standard_uncertainty: of `joules`. The jobs share a meter, or published figures, and so their errors: those of
            the jobs are added, which is the most that they can be together.
        bases: which of "measured" and "modelled" the figures were.
        provenances: the weakest provenance of each job's figures.
        without_joules: jobs that had no figure, so that `joules` is too small by theirs.
    """

    jobs: int = 0
    samples: int = 0
    updates: int = 0
    seconds: float = 0.0
    joules: float | None = None
    standard_uncertainty: float = 0.0
    bases: set[str] = field(default_factory=set)
    provenances: set[str] = field(default_factory=set)
    without_joules: int = 0

    def add(self, result: SampleSet) -> None:
        """Count a job's result."""
        report = result.energy_report
        self.jobs += 1
        self.samples += result.n_chains * result.n_samples
        self.updates += report.updates
        self.seconds += result.timing["total"]
        if report.joules is None:
            self.without_joules += 1
            return
        self.joules = (self.joules or 0.0) + report.joules
        self.standard_uncertainty += report.standard_uncertainty or 0.0
        self.bases.add(report.basis)
        if report.weakest_provenance is not None:
            self.provenances.add(report.weakest_provenance)

    def include(self, other: Usage) -> None:
        """Add another one to this."""
        self.jobs += other.jobs
        self.samples += other.samples
        self.updates += other.updates
        self.seconds += other.seconds
        if other.joules is not None:
            self.joules = (self.joules or 0.0) + other.joules
        self.standard_uncertainty += other.standard_uncertainty
        self.bases |= other.bases
        self.provenances |= other.provenances
        self.without_joules += other.without_joules

    def since(self, before: Usage) -> Usage:
        """What was used after `before`, an earlier state of the same books."""
        known = self.joules is not None and self.jobs - before.jobs > self.without_joules - before.without_joules
        return Usage(
            jobs=self.jobs - before.jobs,
            samples=self.samples - before.samples,
            updates=self.updates - before.updates,
            seconds=self.seconds - before.seconds,
            joules=(self.joules or 0.0) - (before.joules or 0.0) if known else None,
            standard_uncertainty=self.standard_uncertainty - before.standard_uncertainty,
            bases=set(self.bases),
            provenances=set(self.provenances),
            without_joules=self.without_joules - before.without_joules,
        )

    def __str__(self) -> str:
        counts = f"{self.jobs} jobs, {self.samples} samples"
        if self.joules is None:
            return f"{counts}, joules not published for this device"
        basis = " and ".join(sorted(self.bases))
        origin = f", figures {' and '.join(sorted(self.provenances))}" if self.provenances else ""
        missing = f"; {self.without_joules} jobs had none" if self.without_joules else ""
        return f"{counts}, {self.joules:.3g} +- {self.standard_uncertainty:.1g} J ({basis}{origin}{missing})"
