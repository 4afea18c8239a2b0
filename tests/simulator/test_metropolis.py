"""Metropolis updates: the same bits on every body, the law, and the rule itself.

Alpha is 1e-6 for each chi-square, seeds are fixed, and each test states what it would notice.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import glauber as gl
import numpy as np
import pytest
from bodies import ISING_MODELS, SEED, THREADS, assert_bodies_agree, compiled, ising_program, run_whole
from glauber.compile import Run, make_run, pack_spins
from glauber.driver import Batch
from glauber.errors import InvalidModelError, ModelNotSupportedError
from glauber.testing import ExactLaw, chi_square
from glauber_simulator import core
from glauber_simulator.arithmetic import flip_thresholds
from glauber_simulator.driver import SimulatorDriver
from numpy.typing import NDArray
from scipy.stats import chi2, ncx2

ALPHA = 1e-6
POWER = 0.99


@pytest.fixture
def device() -> Iterator[gl.Device]:
    with gl.open_device("sim://ideal?seed=20240604") as opened:
        yield opened


# Identity


@pytest.mark.parametrize("n_chains", [1, 4, 5, 64, 97])
def test_every_body_flips_the_same_spins(n_chains, monkeypatch):
    for turn, name in enumerate(ISING_MODELS):
        rng, program = np.random.default_rng([turn, n_chains]), ising_program(name)
        n = program.n_sites
        schedule = gl.AnnealingSchedule(table=(0.0, 0.3, 0.3, 0.9, 2.0), n_chains=n_chains, dynamics="metropolis")
        rows = n_chains if turn % 2 else 1
        clamp = rng.choice(np.array([-1, 0, 0, 0, 1], np.int8), (rows, n)) if turn % 3 == 1 else None
        fields = rng.normal(size=(rows, n)) if turn % 4 == 1 else None
        initial = pack_spins(rng.choice(np.array([-1, 1], np.int8), (n_chains, n))) if turn % 3 else None
        run = make_run(
            program,
            schedule,
            seed=SEED,
            clamp=clamp,
            fields=fields,
            initial=initial,
            observe={"samples", "moments"},
        )
        run = replace(run, n_warmup=1, n_samples=2, sweeps_per_sample=2)  # more to compare than the last state
        wanted = run_whole("reference", program, run)
        bodies = list(itertools.product(core.AVAILABLE_ISA, THREADS if turn < 2 else [1 + turn % 3]))
        assert_bodies_agree(program, run, wanted, bodies, monkeypatch, (name, n_chains), forced=False)
        kernel = run_whole("core", program, run).kernel
        assert kernel == ("ising, exact" if run.layout == 0 else "ising, sites")
        drawn = run_whole("core", program, replace(run, dynamics="heat bath"))
        assert n < 4 or (drawn.last != wanted.last).any(), "Metropolis was not used"


def test_a_shard_flips_what_the_whole_job_would():
    program = ising_program("torus")
    schedule = gl.AnnealingSchedule(table=(0.3, 0.6, 0.9), n_chains=70, dynamics="metropolis")
    run = make_run(program, schedule, seed=5)
    whole = run_whole("core", program, run).last
    for first, n in ((0, 33), (33, 37)):
        part = run_whole("core", program, replace(run, first_chain=first, n_chains=n))
        np.testing.assert_array_equal(part.last, whole[first : first + n])


@pytest.mark.parametrize("kernel", ["bits", "bytes", "filter", "dense", "sites"])
def test_kernels_that_only_draw_are_refused(kernel):
    schedule = gl.AnnealingSchedule(table=(0.3,), n_chains=64, dynamics="metropolis")
    run = make_run(ising_program("torus"), schedule, seed=5)
    with pytest.raises(InvalidModelError, match="does not fit"):
        run_whole("core", ising_program("torus"), replace(run, kernel=kernel))


# The rule


def test_the_threshold_is_the_power_rounded():
    """Within 4 units of 2^-32 of min(1, 2^-x), and 2^32 - 1 where flipping costs nothing.

    Of the 4, rounding the table and the power costs 1 and 2, and rounding down 1.
    """
    rng = np.random.default_rng(1)
    for b in (0, 1, 12345, 2**31, 6196328019, 2**40 + 1):
        held = np.concatenate([np.arange(-50, 50), rng.integers(-(2**30), 2**30, 2000), rng.integers(0, 2**12, 2000)])
        found = flip_thresholds(held, b).astype(np.float64)
        exact = 2.0 ** (32 - np.maximum(held, 0).astype(np.float64) * b / 2.0**32)
        assert np.abs(found - exact).max() <= 4
        assert (found[held <= 0] == 2**32 - 1).all()


# The law


def model_of(n: int, seed: int) -> gl.IsingModel:
    rng = np.random.default_rng(seed)
    pairs = list(itertools.combinations(range(n), 2))
    return gl.IsingModel(rng.integers(-2, 3, n) / 4 + 0.125, pairs, rng.integers(-4, 5, len(pairs)) / 4)


def swept(law: NDArray[np.float64], model: gl.IsingModel, beta: float, *, sign: int = 1) -> NDArray[np.float64]:
    """A law over 2^n states after one sweep of Metropolis updates, site by site in the program's order."""
    n = model.n_sites
    energies = ExactLaw(model, 1.0).energies.reshape((2,) * n)
    p = law.reshape((2,) * n)
    for site in compiled(model).order.site.tolist():
        accept = np.exp(np.minimum(0.0, -sign * beta * (np.flip(energies, axis=site) - energies)))
        moved = p * accept
        p = p - moved + np.flip(moved, axis=site)
    return p.ravel()


def drawn(law: NDArray[np.float64], model: gl.IsingModel, beta: float) -> NDArray[np.float64]:
    """The same by heat bath."""
    n = model.n_sites
    energies = ExactLaw(model, 1.0).energies.reshape((2,) * n)
    p = law.reshape((2,) * n)
    for site in compiled(model).order.site.tolist():
        weight = np.exp(-beta * (energies - energies.min(axis=site, keepdims=True)))
        p = p.sum(axis=site, keepdims=True) * weight / weight.sum(axis=site, keepdims=True)
    return p.ravel()


def power_against(wrong: NDArray[np.float64], right: NDArray[np.float64], n: int) -> float:
    """The probability that chi_square at ALPHA notices n samples of `wrong`."""
    rare = right * n < 10
    a, b = np.append(wrong[~rare], wrong[rare].sum()), np.append(right[~rare], right[rare].sum())
    a, b = a[b > 0], b[b > 0]
    return float(ncx2.sf(chi2.isf(ALPHA, len(b) - 1), len(b) - 1, n * float(((a - b) ** 2 / b).sum())))


@pytest.mark.parametrize("n_chains", [4, 300_000])
def test_the_law_after_each_of_few_sweeps(device, n_chains):
    """Sweeps multiplied out exactly, in both layouts; four chains, in site planes, are run with 1000 seeds.

    300,000 chains would notice, with 0.99: heat bath in its place, beta + 5 %, and one sweep more.
    """
    model, beta = model_of(5, seed=7), 0.8
    law = np.full(32, 1 / 32)
    laws = [law]
    for _ in range(4):
        laws.append(swept(laws[-1], model, beta))
    for sweeps in (1, 2, 3):
        schedule = gl.AnnealingSchedule(table=(beta,) * sweeps, n_chains=n_chains, dynamics="metropolis")
        seeds = 1 if n_chains > 4 else 1000
        total = n_chains * seeds
        jobs = [device.submit(model, schedule, observe="last", seed=seed) for seed in range(seeds)]
        last = np.concatenate([job.result().last for job in jobs])
        right = laws[sweeps]
        outcome = chi_square(ExactLaw(model, beta).counts(last), right)
        assert outcome.p_value > ALPHA, (sweeps, outcome)
        if n_chains > 4:
            bath, warm = law, law
            for _ in range(sweeps):
                bath, warm = drawn(bath, model, beta), swept(warm, model, 1.05 * beta)
            for name, wrong in (("heat bath", bath), ("beta + 5 %", warm), ("one sweep more", laws[sweeps + 1])):
                assert power_against(wrong, right, total) > POWER, (sweeps, name)


def test_the_stationary_law_is_boltzmanns(device):
    """300,000 chains after 60 sweeps; the oracle's own law is then within 1e-9 of Boltzmann's, and stays there."""
    model, beta, n_chains = model_of(6, seed=3), 0.5, 300_000
    exact = ExactLaw(model, beta).probabilities
    assert np.abs(swept(exact, model, beta) - exact).max() < 1e-15
    law = np.full(64, 1 / 64)
    for _ in range(60):
        law = swept(law, model, beta)
    assert np.abs(law - exact).max() < 1e-9
    schedule = gl.AnnealingSchedule(table=(beta,) * 60, n_chains=n_chains, dynamics="metropolis")
    last = device.submit(model, schedule, observe="last").result().last
    assert chi_square(ExactLaw(model, beta).counts(last), exact).p_value > ALPHA
    for wrong in (1.05 * beta, -beta):
        assert (
            power_against(ExactLaw(model, wrong).probabilities if wrong > 0 else exact[::-1], exact, n_chains) > POWER
        )


def test_a_clamped_law(device):
    model, beta, clamp = model_of(6, seed=4), 0.6, {1: 1, 4: -1}
    schedule = gl.AnnealingSchedule(table=(beta,) * 60, n_chains=100_000, dynamics="metropolis")
    last = device.submit(model, schedule, clamp=clamp, observe="last").result().last
    law = ExactLaw(model, beta, tuple(clamp.items()))
    assert chi_square(law.counts(last), law.probabilities).p_value > ALPHA


class FlippedSign(SimulatorDriver):
    """A negative control: flips are judged by the field with its sign turned round."""

    def run(self, run: Run) -> Iterator[Batch]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("glauber_simulator.reference.flip_thresholds", lambda held, b: flip_thresholds(-held, b))
            yield from super().run(run)


@pytest.mark.parametrize("wrong", [False, True])
def test_a_flipped_sign_is_found_out(device, wrong):
    """The chi-square passes the right reference and fails the wrong one: power above 0.99."""
    model, beta, sweeps, n_chains = model_of(5, seed=7), 0.8, 3, 5000
    driver = FlippedSign(device.spec, "reference") if wrong else SimulatorDriver(device.spec, "reference")
    right = turned = np.full(32, 1 / 32)
    for _ in range(sweeps):
        right, turned = swept(right, model, beta), swept(turned, model, beta, sign=-1)
    assert power_against(turned, right, n_chains) > POWER
    schedule = gl.AnnealingSchedule(table=(beta,) * sweeps, n_chains=n_chains, dynamics="metropolis")
    with gl.Device(driver, seed=8) as machine:
        last = machine.submit(model, schedule, observe="last").result().last
    outcome = chi_square(ExactLaw(model, beta).counts(last), right)
    assert (outcome.p_value > ALPHA) == (not wrong), outcome


# What is refused


def test_what_cannot_flip_is_refused(device):
    schedule = gl.AnnealingSchedule(n_sweeps=10, dynamics="metropolis")
    model = gl.IsingModel.from_edges([(0, 1, 1.0)])
    with pytest.raises(ModelNotSupportedError, match="Ising models"):
        device.submit(gl.PottsModel(np.zeros((2, 3)), [(0, 1)], [1.0]), schedule)
    for address in ("sim://dwave-advantage-system4", "sim://kv260"):
        with gl.open_device(address) as chip, pytest.raises(ModelNotSupportedError):
            chip.submit(model, schedule)
    able = device.spec.capabilities.model_copy(update={"methods": ("tempering",)})
    heat_bath_only = SimulatorDriver(device.spec.model_copy(update={"capabilities": able}))
    with gl.Device(heat_bath_only) as chip, pytest.raises(ModelNotSupportedError, match="cannot do metropolis"):
        chip.submit(model, schedule)
    with pytest.raises(InvalidModelError, match="dynamics"):
        gl.AnnealingSchedule(dynamics="glauber")


def test_a_request_is_the_same_after_saving(tmp_path):
    request = gl.JobRequest(model_of(3, seed=1), gl.AnnealingSchedule(n_sweeps=9, dynamics="metropolis"))
    request.save(tmp_path / "request.npz")
    assert gl.JobRequest.load(tmp_path / "request.npz").key == request.key
    assert request.key != gl.JobRequest(model_of(3, seed=1), gl.AnnealingSchedule(n_sweeps=9)).key
