"""The contract's clause about all of a device at once: accepted by sequential tests with a stated alpha and power."""

from __future__ import annotations

from glauber.errors import ModelNotSupportedError
from glauber.testing.acceptance.accept import SAMPLES, SMALLEST_SAMPLES, accept
from glauber.testing.acceptance.probes import make_probes
from glauber.testing.contract_bench import ContractBench, clause, require, skip


class AcceptanceClauses(ContractBench):
    """The clause that `glauber.testing.acceptance` stands behind."""

    @clause
    def test_acceptance(self) -> None:
        """All p-bits and couplings draw from the Boltzmann law of the programmed model, and noise has no memory."""
        self.need_sampler()
        try:
            probes = make_probes(self.spec)
        except ModelNotSupportedError as error:
            skip(str(error))
        wanted, share = SAMPLES if self.effort == "full" else SAMPLES // 2, 1 / len(probes.jobs)
        samples = min(
            self.affordable(wanted, thin=job.thin, model=job.model, share=share, beta=job.beta) for job in probes.jobs
        )
        if samples < SMALLEST_SAMPLES:
            skip(
                f"the device draws {samples} samples of a job on all of its p-bits in the time limit, and the tails of"
                f" these tests need {SMALLEST_SAMPLES}; a longer time_limit is a way out"
            )
        report = accept(self.device, samples=samples, power_runs=self.power_runs, patience=self.patience)
        self.bench_state().acceptance = report
        result = self.bench_state().current
        result.alpha, result.p_value, result.samples = report.alpha, report.p_value, report.samples
        result.power = {each.fault: each.power for each in report.power}
        for note in report.notes:
            self.note(note)
        require(report.accepted, f"{report.suspicion} (p = {report.p_value:.2g} for alpha {report.alpha:g})")
