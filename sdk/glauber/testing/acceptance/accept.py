"""Accept or reject a device: looks at growing samples until all is clearly well, or clearly not."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glauber.checks import whole_number
from glauber.device import Device
from glauber.errors import InvalidModelError, ModelNotSupportedError
from glauber.model import IsingModel
from glauber.samples import SampleSet
from glauber.schedule import SamplingSchedule
from glauber.testing.acceptance.power import power_by_formula, power_measured, power_simulated
from glauber.testing.acceptance.probes import Probe, make_probes, most_chains
from glauber.testing.acceptance.report import AcceptanceReport, Look
from glauber.testing.acceptance.scores import Scores, score
from glauber.testing.acceptance.spending import Spending
from glauber.testing.acceptance.statistics import statistics
from glauber.testing.contract_models import programmed_model

ALPHA = 1e-5
"""Of a whole acceptance."""
LOOKS = 3
GROWTH = 2
"""Each look sees so many times the samples of the one before."""
SAMPLES = 4096
"""Of each job at the first look."""
SMALLEST_SAMPLES = 1024
"""Below it, sums are not normal enough for tails of 1e-8; at it, such a tail may be three times as likely as stated."""


def accept(
    device: Device,
    *,
    alpha: float = ALPHA,
    samples: int = SAMPLES,
    seed: int | None = None,
    power_runs: int = 0,
    patience: float = 300.0,
) -> AcceptanceReport:
    """Test whether a device draws from the Boltzmann law of what it is programmed with.

    Three jobs on all of its p-bits (probes.py), exact moments of the law at any size (scores.py), some fifteen tests
    (statistics.py), and looks that together reject a right device with probability alpha (spending.py). The law is that
    of the *programmed* model: rounding is no fault, unless it is more than the device states. A calibration in use is
    part of the device.

    Args:
        device: an open device.
        alpha: probability, at most, that a right device is rejected.
        samples: of each job at the first look, 1024 or more; each later look draws twice as many as the one before.
        seed: of the jobs; None for a new one each time.
        power_runs: simulated devices for each fault, to measure the power; 0 states it by formula, or as it was
            measured for the same jobs.
        patience: seconds that a job may take.

    Raises:
        ModelNotSupportedError: the device promises no law, or takes none of the models; says why.
        InvalidModelError: an argument that cannot be.
    """
    whole_number("power_runs", power_runs, 0)
    whole_number("samples", samples, SMALLEST_SAMPLES)
    if seed is not None:
        whole_number("seed", seed, 0, 2**64 - 1)
    spending = Spending(alpha, LOOKS)
    bench, looks, first = _examine(device, spending, samples, seed, patience)
    power = power_by_formula(device.spec, bench.probes, first, spending, GROWTH, len(looks[0].statistics))
    key, notes = bench.key(alpha), bench.notes()
    power = power_measured(key, power)
    if power_runs:

        def rejects(wrong: Device, number: int) -> bool:
            _, taken, _ = _examine(wrong, spending, samples, number, patience)
            return taken[-1].verdict == "rejected"

        try:
            power = power_simulated(device.spec, bench.probes, power, power_runs, rejects)
        except ModelNotSupportedError as error:
            notes.append(f"the power could not be simulated: {error}")
    return AcceptanceReport(device.address, device.spec.name, alpha, looks, power, notes, key)


def _examine(
    device: Device, spending: Spending, samples: int, seed: int | None, patience: float
) -> tuple[_Bench, list[Look], Scores]:
    """The looks, and the scores of the first; arguments as for `accept`."""
    bench = _Bench(device, samples, seed, patience)
    first = None
    looks: list[Look] = []
    for number in range(LOOKS):
        drawn, scores = bench.draw(number)
        first = scores if first is None else first
        tests = sorted(statistics(bench.probes, scores), key=lambda test: test.p_value)
        q = min(1.0, tests[0].p_value * len(tests))
        verdict = spending.verdict(number, q)
        looks.append(Look(drawn, q, spending.reject_at(number), spending.accept_above(number), verdict, tests))
        if verdict != "go on":
            break
    assert first is not None
    return bench, looks, first


class _Bench:
    """A device with the jobs that suit it."""

    def __init__(self, device: Device, samples: int, seed: int | None, patience: float) -> None:
        self._device, self._samples, self._seed, self._patience = device, samples, seed, patience
        spec = device.spec
        broken = device.calibration.faults if device.calibration is not None else {}
        self.probes = make_probes(spec, {*device.masked, *broken})
        self.in_order = "samples" in spec.capabilities.observables
        self.chains = most_chains(self._fits)

    def _schedule(self, probe: Probe, chains: int, samples: int) -> SamplingSchedule:
        length = math.ceil(samples / chains) if self.in_order else 1
        return SamplingSchedule(
            n_samples=length, n_chains=chains, n_warmup=probe.n_warmup, sweeps_per_sample=probe.thin, beta=probe.beta
        )

    def _fits(self, chains: int) -> bool:
        probe, observe = self.probes.jobs[0], "samples" if self.in_order else "last"
        try:
            self._device.estimate(probe.model, self._schedule(probe, chains, self._samples), observe=observe)
        except (ModelNotSupportedError, InvalidModelError):  # too many for the device, or for this computer
            return chains == 1  # which the first job then says better
        return True

    def draw(self, look: int) -> tuple[int, Scores]:
        """Samples of each job, and the scores of all jobs."""
        total: Scores | None = None
        drawn = 0
        for number, probe in enumerate(self.probes.jobs):
            states, held = self._states(probe, self._samples * GROWTH**look, (look, number))
            scores = score(self.probes, probe, held, states, in_order=self.in_order)
            total = scores if total is None else total + scores
            drawn = states.shape[0] * states.shape[1]
        assert total is not None
        return drawn, total

    def _states(self, probe: Probe, samples: int, key: tuple[int, int]) -> tuple[NDArray[np.int8], IsingModel]:
        """(chains, samples, sites), and the model as the device rounded it."""
        schedule = self._schedule(probe, self.chains, samples)
        if self.in_order:
            result = self._run(probe, schedule, "samples", (*key, 0))
            return result.spins, programmed_model(result, self._device.spec)
        results = [self._run(probe, schedule, "last", (*key, k)) for k in range(math.ceil(samples / self.chains))]
        return np.stack([each.last for each in results], axis=1), programmed_model(results[0], self._device.spec)

    def _run(self, probe: Probe, schedule: SamplingSchedule, observe: Any, key: tuple[int, ...]) -> SampleSet:
        seed = None
        if self._seed is not None:
            seed = int(np.random.SeedSequence((self._seed, *key)).generate_state(1, np.uint64)[0])
        return self._device.submit(probe.model, schedule, seed=seed, observe=observe).result(self._patience)

    def key(self, alpha: float) -> str:
        """Digest of all that decides about the power against a fault."""
        span = self._device.spec.coefficients.weight_range
        asked = (self.probes.key, span, self.chains, self._samples, alpha, LOOKS, GROWTH, self.in_order)
        return hashlib.blake2b(repr(asked).encode(), digest_size=8).hexdigest()

    def notes(self) -> list[str]:
        """What is not looked at."""
        probes, found = self.probes, []
        seen = sum(job.n_coupled for job in probes.jobs)
        if seen < probes.n_edges:
            found.append(f"{seen} of {probes.n_edges} couplings were programmed")
        n = self._device.spec.n_sites
        if n is not None and len(probes.sites) < n:
            found.append(f"{len(probes.sites)} of {n} p-bits were used")
        if not self.in_order:
            found.append("the device returns last states only, so nothing is said of the noise's memory")
        return found
