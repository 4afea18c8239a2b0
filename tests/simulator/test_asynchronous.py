"""Asynchronous p-bits: the same bits on every body, Poisson updates, and exact laws with and without a delay.

Alpha is 1e-6 for each statistical check, seeds are fixed, and each test states what it would notice. Chains are
independent, so every count over chains is multinomial and needs no correction.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import glauber as gl
import numpy as np
import pytest
from bodies import ISING_MODELS, SEED, THREADS, assert_bodies_agree, ising_program, run_whole
from glauber.compile import TICKS, Run, make_run, pack_spins
from glauber.compile.clock import poisson_counts
from glauber.driver import Batch
from glauber.errors import InvalidModelError, ModelNotSupportedError
from glauber.testing import ExactLaw, chi_square
from glauber_simulator import core
from glauber_simulator.driver import SimulatorDriver
from numpy.typing import NDArray
from scipy.linalg import expm
from scipy.stats import chi2, ncx2, norm, poisson

ALPHA = 1e-6
POWER = 0.99


@pytest.fixture
def device() -> Iterator[gl.Device]:
    with gl.open_device("sim://ideal?seed=20240605") as opened:
        yield opened


# Identity


def asynchronous_run(name: str, n_chains: int, delay: float, rng: np.random.Generator) -> Run:
    program = ising_program(name)
    n = program.n_sites
    schedule = gl.AsynchronousSchedule(
        n_samples=2,
        n_chains=n_chains,
        n_warmup=1,
        sweeps_per_sample=2,
        beta=0.7,
        rates=rng.choice([0.5, 1.0, 3.7], n) if rng.random() < 0.7 else None,
        delay=delay,
    )
    rows = n_chains if rng.random() < 0.5 else 1
    clamp = rng.choice(np.array([-1, 0, 0, 0, 1], np.int8), (rows, n)) if rng.random() < 0.5 else None
    fields = rng.normal(size=(rows, n)) if rng.random() < 0.3 and name != "torus" else None
    initial = pack_spins(rng.choice(np.array([-1, 1], np.int8), (n_chains, n))) if rng.random() < 0.5 else None
    return make_run(
        program, schedule, seed=SEED, clamp=clamp, fields=fields, initial=initial, observe={"samples", "moments"}
    )


@pytest.mark.parametrize("delay", [0.0, 0.3, 2.5])
@pytest.mark.parametrize("n_chains", [1, 6])
def test_every_body_makes_the_same_updates(n_chains, delay, monkeypatch):
    for turn, name in enumerate(ISING_MODELS):
        run = asynchronous_run(name, n_chains, delay, np.random.default_rng([turn, n_chains, round(10 * delay)]))
        wanted = run_whole("reference", ising_program(name), run)
        assert wanted.events is not None
        assert ising_program(name).n_sites < 4 or wanted.events.updates.sum() > 0
        assert delay == 0 or ising_program(name).n_sites < 30 or len(wanted.events.in_flight) > 0
        bodies = list(itertools.product(core.AVAILABLE_ISA, THREADS if turn < 2 else [1 + turn % 3]))
        context = (name, n_chains, delay)
        assert_bodies_agree(ising_program(name), run, wanted, bodies, monkeypatch, context, forced=False)
        assert run_whole("core", ising_program(name), run).kernel == "ising, events"


def test_a_shard_does_what_the_whole_job_would():
    run = asynchronous_run("glass", 7, 0.5, np.random.default_rng(1))
    run = replace(run, fields=None, clamp=None, initial=None)
    whole = run_whole("core", ising_program("glass"), run).samples
    for first, n in ((0, 3), (3, 4)):
        part = run_whole("core", ising_program("glass"), replace(run, first_chain=first, n_chains=n)).samples
        np.testing.assert_array_equal(part, whole[first : first + n])


def test_updates_beyond_sweep_2_to_the_32(monkeypatch):
    """The sweep's upper half is in the key."""
    run = asynchronous_run("glass", 2, 0.5, np.random.default_rng(1))
    begin = 2**32 - 3
    run = replace(run, first_sweep=begin, n_warmup=begin - 1, initial=np.zeros((2, 8), np.uint8), fields=None)
    wanted = run_whole("reference", ising_program("glass"), run)
    assert_bodies_agree(ising_program("glass"), run, wanted, [("portable", 1)], monkeypatch, "2^32", forced=False)


def test_a_run_that_cannot_be():
    run = asynchronous_run("torus", 2, 0.5, np.random.default_rng(1))
    clock = run.clock
    assert clock is not None
    late = np.array([[0, 3, 2 * TICKS]])
    for broken in (
        replace(run, layout=0),
        replace(run, dynamics="metropolis"),
        replace(run, kernel="sites"),
        replace(run, clock=replace(clock, rate=clock.rate + 9)),
        replace(run, clock=replace(clock, delay=65 * TICKS)),
        replace(run, clock=replace(clock, in_flight=late)),
        replace(run, clock=replace(clock, in_flight=np.array([[0, 3, 9], [0, 4, 8]]))),
        replace(run, clock=replace(clock, in_flight=np.array([[2, 3, 9]]))),
    ):
        with pytest.raises(InvalidModelError, match="refused"):
            run_whole("core", ising_program("torus"), replace(broken, fields=None, clamp=None))


def test_more_than_there_is_room_for_is_an_error():
    run = replace(asynchronous_run("torus", 2, 0.0, np.random.default_rng(1)), clamp=None)
    assert run.clock is not None
    always = replace(run.clock, counts=np.zeros((3, 9), np.uint64), mean=9.0 * 96)  # nine updates of each p-bit
    done = run_whole("core", ising_program("torus"), replace(run, clock=always)).events
    assert done is not None
    assert (done.updates == 9 * 2 * run.n_sweeps).all()
    crowded = replace(always, mean=1.0)
    flying = replace(always, mean=1.0, counts=np.zeros((3, 1), np.uint64), delay=64 * TICKS)
    for clock in (crowded, flying):
        with pytest.raises(InvalidModelError, match="happened in one sweep"):
            run_whole("core", ising_program("torus"), replace(run, clock=clock, n_warmup=9, b=0 * run.b))


# Updates


def test_the_table_is_poissons():
    """Within half a unit of 2^-32, against SciPy's own function."""
    rates = np.array([1e-9, 0.3, 1.0, 7.5, 64.0])
    table = poisson_counts(rates)
    exact = poisson.cdf(np.arange(table.shape[1]), rates[:, None]) * 2**32
    assert np.abs(table.astype(np.float64) - exact).max() <= 0.5 + 1e-4
    assert (table[:, -1] == 2**32).all()
    assert (np.diff(table.astype(np.int64), axis=1) >= 0).all()


@pytest.mark.parametrize("rate", [0.25, 1.0, 9.0])
def test_updates_are_poisson(device, rate):
    """Counts of 10,000 p-bits in 3 sweeps: chi-square of their histogram. Would notice, with 0.99, a rate 5 % off, and
    updates at regular times, which scatter less."""
    model = gl.IsingModel(np.zeros(10_000), np.zeros((0, 2), np.int32), np.zeros(0))
    schedule = gl.AsynchronousSchedule(n_samples=1, n_warmup=2, rates=np.full(10_000, rate), n_chains=4)
    updates = device.submit(model, schedule).result().updates
    assert updates is not None
    mean = 12 * rate
    values = np.arange(int(mean + 12 * math.sqrt(mean) + 20))
    law = poisson.pmf(values, mean)
    outcome = chi_square(np.bincount(updates, minlength=len(values)), law / law.sum())
    assert outcome.p_value > ALPHA, outcome
    fast = poisson.pmf(values, 1.05 * mean)
    regular = norm.pdf(values, mean, math.sqrt(mean / 2))
    for wrong in (fast, regular):
        assert power_against(wrong / wrong.sum(), law / law.sum(), 10_000) > POWER


def power_against(wrong: NDArray[np.float64], right: NDArray[np.float64], n: int) -> float:
    """The probability that chi_square at ALPHA notices n samples of `wrong`."""
    rare = right * n < 10
    a, b = np.append(wrong[~rare], wrong[rare].sum()), np.append(right[~rare], right[rare].sum())
    a, b = a[b > 0], b[b > 0]
    return float(ncx2.sf(chi2.isf(ALPHA, len(b) - 1), len(b) - 1, n * float(((a - b) ** 2 / b).sum())))


# Without a delay: a Markov process, solved exactly

RATES = (0.5, 1.0, 2.0, 0.7)


def model_of(n: int, seed: int) -> gl.IsingModel:
    rng = np.random.default_rng(seed)
    pairs = list(itertools.combinations(range(n), 2))
    return gl.IsingModel(rng.integers(-2, 3, n) / 4, pairs, rng.integers(-4, 5, len(pairs)) / 4)


def after(model: gl.IsingModel, beta: float, rates: tuple[float, ...], time: float) -> NDArray[np.float64]:
    """The law after some time from the uniform one: exp(Q t), Q the sum of heat baths less 1, each times its rate."""
    n, size = model.n_sites, 2**model.n_sites
    energies = ExactLaw(model, 1.0).energies.reshape((2,) * n)
    q = np.zeros((size, size))
    for site, rate in enumerate(rates):
        weight = np.exp(-beta * (energies - energies.min(axis=site, keepdims=True)))
        share = (weight / weight.sum(axis=site, keepdims=True)).ravel()
        for state in range(size):
            for target in {state, state ^ 1 << (n - 1 - site)}:
                q[target, state] += rate * share[target]
        q -= rate * np.eye(size)
    return np.asarray(expm(q * time) @ np.full(size, 1 / size))


@pytest.mark.parametrize("sweeps", [1, 2])
def test_the_law_after_some_time_is_exact(device, sweeps):
    """200,000 chains. Would notice, with 0.99: beta + 5 %, all rates 1, rates + 10 %, and a sweep in order in place of
    random times."""
    model, beta, n_chains = model_of(4, seed=12), 1.0, 200_000
    schedule = gl.AsynchronousSchedule(n_samples=1, n_chains=n_chains, n_warmup=sweeps - 1, beta=beta, rates=RATES)
    last = device.submit(model, schedule, observe="last").result().last
    law = ExactLaw(model, beta)
    right = after(model, beta, RATES, sweeps)
    outcome = chi_square(law.counts(last), right)
    assert outcome.p_value > ALPHA, outcome
    faster = tuple(1.1 * rate for rate in RATES)
    in_order = np.full(16, 1 / 16).reshape((2,) * 4)
    for site in range(4 * sweeps):
        energies = law.energies.reshape((2,) * 4)
        weight = np.exp(-beta * (energies - energies.min(axis=site % 4, keepdims=True)))
        in_order = in_order.sum(axis=site % 4, keepdims=True) * weight / weight.sum(axis=site % 4, keepdims=True)
    for name, wrong in (
        ("beta", after(model, 1.05 * beta, RATES, sweeps)),
        ("rates 1", after(model, beta, (1.0,) * 4, sweeps)),
        ("rates + 10 %", after(model, beta, faster, sweeps)),
        ("in order", in_order.ravel()),
    ):
        assert power_against(wrong, right, n_chains) > POWER, name


def test_without_a_delay_the_law_is_boltzmanns(device):
    """Whatever the rates, under fields of the job and a clamp; 200,000 chains, power against beta + 5 %."""
    model, beta, n_chains, clamp = model_of(6, seed=5), 0.6, 200_000, {2: -1}
    rates = (0.5, 1.0, 2.0, 0.7, 5.0, 1.0)
    fields = np.array([0.25, -0.5, 0.0, 0.5, 0.25, -0.25])
    schedule = gl.AsynchronousSchedule(n_samples=1, n_chains=n_chains, n_warmup=59, beta=beta, rates=rates)
    result = device.submit(model, schedule, fields=fields, clamp=clamp, observe="last").result()
    law = ExactLaw(model.replace(fields=fields), beta, tuple(clamp.items()))
    outcome = chi_square(law.counts(result.last), law.probabilities)
    assert outcome.p_value > ALPHA, outcome
    assert result.updates is not None
    assert result.updates[2] == 0
    warm = ExactLaw(model.replace(fields=fields), 1.05 * beta, tuple(clamp.items())).probabilities
    assert power_against(warm, law.probabilities, n_chains) > POWER


# With a delay: two p-bits, solved in closed form


COUPLED = math.tanh(0.8)


def pair_correlations(a: float, delay: float, lag: float) -> tuple[float, float]:
    """<s1(t) s2(t)> and <s1(t) s1(t - lag)> of two p-bits of rate 1 that see each other late; 0 <= lag <= delay.

    An update of s1 at t has the mean a s2(t - delay), a = tanh(beta J), and its time knows nothing of the past. So with
    A(x) = <s1(t) s1(t - x)> and C(x) = <s1(t) s2(t - x)>, both even, S = A + C and A - C obey, for x > 0,
    S'(x) = -S(x) + k S(|x - delay|), k = a and -a. On 0 .. delay that gives S'' = (1 - a^2) S, so
    S = alpha (cosh wx + rho sinh wx), w^2 = 1 - a^2, with rho from S'(0) = -S(0) + k S(delay). A(0) = 1, and C'(0) = 0
    because <s1 s2> stands still: two equations for the two alphas.
    """
    w = math.sqrt(1 - a * a)
    rho = [(k * math.cosh(w * delay) - 1) / (w - k * math.sinh(w * delay)) for k in (a, -a)]
    c = (rho[1] - rho[0]) / (rho[1] + rho[0])
    s = [(1 + sign * c) * (math.cosh(w * lag) + r * math.sinh(w * lag)) for sign, r in zip((1, -1), rho, strict=True)]
    return c, sum(s) / 2


def sampled_correlations(machine: gl.Device, delay: float, n_chains: int) -> NDArray[np.float64]:
    """The two of pair_correlations with a lag of one sweep, measured at beta J = 0.8.

    The start is forgotten at the rate m of 1 - m = tanh(0.8) exp(m delay), 0.12 at the longest delay: e^-14 is left.
    """
    model = gl.IsingModel(np.zeros(2), [(0, 1)], [1.0])
    schedule = gl.AsynchronousSchedule(n_samples=2, n_chains=n_chains, n_warmup=120, beta=0.8, delay=delay)
    spins = machine.submit(model, schedule).result().spins.astype(np.int64)
    return np.array([(spins[:, 1, 0] * spins[:, 1, 1]).mean(), (spins[:, 1, 0] * spins[:, 0, 0]).mean()])


def test_the_oracle_knows_the_law_without_a_delay():
    """With no delay <s1 s2> is a; the closed form goes there, and falls as the delay grows."""
    a = COUPLED
    assert pair_correlations(a, 0.0, 0.0) == pytest.approx((a, 1.0))
    found = [pair_correlations(a, delay, 0.0)[0] for delay in (0.0, 0.1, 0.5, 1.5, 10.0)]
    assert all(x > y for x, y in itertools.pairwise(found))


@pytest.mark.parametrize("delay", [pytest.param(delay, marks=pytest.mark.slow) for delay in (1.0, 1.5, 2.25)])
def test_two_late_p_bits_have_the_exact_correlations(device, delay):
    """200,000 chains, z at ALPHA for each. Would notice, with 0.99, a delay 10 % off."""
    n_chains, a = 200_000, COUPLED
    found = sampled_correlations(device, delay, n_chains)
    limit = norm.isf(ALPHA / 2)
    moved = np.zeros(2)
    for k, exact in enumerate(pair_correlations(a, delay, 1.0)):
        error = math.sqrt((1 - exact**2) / n_chains)
        assert abs(found[k] - exact) < limit * error, (k, found[k], exact)
        moved[k] = abs(pair_correlations(a, 1.1 * delay, 1.0)[k] - exact) / error
    assert moved.max() > limit + norm.isf(1 - POWER)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.05, 0.4])
def test_short_delays(device, delay):
    """<s1 s2> alone, whose closed form holds for any delay; would notice with 0.99 a delay of 0."""
    n_chains, a = 200_000, COUPLED
    exact, limit = pair_correlations(a, delay, 0.0)[0], norm.isf(ALPHA / 2)
    error = math.sqrt((1 - exact**2) / n_chains)
    assert abs(sampled_correlations(device, delay, n_chains)[0] - exact) < limit * error
    assert abs(a - exact) > (limit + norm.isf(1 - POWER)) * error


class Prompt(SimulatorDriver):
    """A negative control: neighbours see every flip at once."""

    def run(self, run: Run) -> Iterator[Batch]:
        assert run.clock is not None
        yield from super().run(replace(run, clock=replace(run.clock, delay=0)))


class Regular(SimulatorDriver):
    """A negative control: one update of each p-bit in every sweep, at a random time."""

    def run(self, run: Run) -> Iterator[Batch]:
        assert run.clock is not None
        once = np.full(run.clock.counts.shape, 2**32, np.uint64)
        once[:, 0] = 0
        yield from super().run(replace(run, clock=replace(run.clock, counts=once)))


def test_a_delay_that_is_left_out_is_found_out(device):
    a, n_chains = COUPLED, 200_000
    exact = pair_correlations(a, 1.5, 1.0)[0]
    with gl.Device(Prompt(device.spec), seed=1) as machine:
        found = sampled_correlations(machine, 1.5, n_chains)[0]
    assert abs(found - exact) > norm.isf(ALPHA / 2) * math.sqrt((1 - exact**2) / n_chains)


def test_regular_updates_are_found_out(device):
    """The law of test_the_law_after_some_time_is_exact fails where each p-bit has exactly one update in a sweep."""
    model, rates = model_of(4, seed=12), (1.0,) * 4
    schedule = gl.AsynchronousSchedule(n_samples=1, n_chains=200_000, beta=1.0)
    for driver, right in ((SimulatorDriver(device.spec), True), (Regular(device.spec), False)):
        with gl.Device(driver, seed=2) as machine:
            last = machine.submit(model, schedule, observe="last").result().last
        outcome = chi_square(ExactLaw(model, 1.0).counts(last), after(model, 1.0, rates, 1.0))
        assert (outcome.p_value > ALPHA) == right, outcome


# What is refused, what is reported


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"rates": (1.0, 0.0)}, "rates"),
        ({"rates": (1.0, 65.0)}, "rates"),
        ({"rates": (1.0, math.nan)}, "rates"),
        ({"delay": -0.1}, "delay"),
        ({"delay": math.inf}, "delay"),
        ({"delay": 65.0}, "delay"),
        ({"beta": -1.0}, "beta"),
        ({"n_samples": 2**48, "n_warmup": 1}, "sweeps in all"),
    ],
)
def test_a_schedule_that_cannot_be(arguments, match):
    with pytest.raises(InvalidModelError, match=match):
        gl.AsynchronousSchedule(**arguments)


def test_what_cannot_be_asynchronous_is_refused(device):
    model = gl.IsingModel.from_edges([(0, 1, 1.0)])
    schedule = gl.AsynchronousSchedule(n_samples=5)
    with pytest.raises(InvalidModelError, match="3 rates for 2 sites"):
        device.submit(model, gl.AsynchronousSchedule(rates=(1.0, 1.0, 1.0)))
    with pytest.raises(ModelNotSupportedError, match="Ising models"):
        device.submit(gl.PottsModel(np.zeros((2, 3)), [(0, 1)], [1.0]), schedule)
    with gl.open_device("sim://kv260") as chip, pytest.raises(ModelNotSupportedError):
        chip.submit(model, schedule)
    with gl.open_device("sim://pbit-king-64") as chip, pytest.raises(ModelNotSupportedError, match="embedded"):
        chip.submit(model_of(10, seed=1), schedule, embed=True)


def test_the_result_counts_updates(device, tmp_path):
    rates = (0.5, 1.0, 2.0, 4.0)
    schedule = gl.AsynchronousSchedule(n_samples=500, n_chains=3, n_warmup=20, rates=rates, beta=0.4)
    result = device.submit(model_of(4, seed=3), schedule, clamp={1: 1}, seed=4).result()
    assert result.spins.shape == (3, 500, 4)
    assert result.provenance.beta == 0.4
    assert result.updates is not None
    assert result.updates[1] == 0
    expected = 3 * 520 * np.array([0.5, 2.0, 4.0])
    assert (np.abs(result.updates[[0, 2, 3]] - expected) < norm.isf(ALPHA / 2) * np.sqrt(expected)).all()
    assert result.energy_report.updates == round(expected.sum())
    result.save(tmp_path / "asynchronous.npz")
    again = gl.SampleSet.load(tmp_path / "asynchronous.npz")
    np.testing.assert_array_equal(again.updates, result.updates)
    request = gl.JobRequest(model_of(4, seed=3), schedule)
    request.save(tmp_path / "request.npz")
    assert gl.JobRequest.load(tmp_path / "request.npz").key == request.key
    assert device.submit(model_of(4, seed=3)).result().updates is None
