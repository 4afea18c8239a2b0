"""Parallel tempering: the same bits on every body, and the law that it says.

The laws are those of the *joint* state of all temperatures, which an exchange with a wrong sign or scale would bend
while each energy still looks plausible. Alpha is 1e-6 for each chi-square and z, seeds are fixed, and each test states
what it would notice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import glauber as gl
import numpy as np
import pytest
from bodies import SEED, THREADS, assert_bodies_agree, compiled, every_isa, has_kernel, ising_program, run_whole
from glauber.compile import Exchange, Run, make_run, pack_spins
from glauber.driver import Batch
from glauber.errors import InvalidModelError, ModelNotSupportedError
from glauber.testing import ExactLaw, chi_square
from glauber_simulator import core, moves
from glauber_simulator.driver import SimulatorDriver
from numpy.typing import NDArray
from scipy.stats import chi2, ncx2, norm

ALPHA = 1e-6
POWER = 0.99


@pytest.fixture
def device() -> Iterator[gl.Device]:
    with gl.open_device("sim://ideal?seed=20240602") as opened:
        yield opened


# Identity


def tempered_run(name: str, n_temperatures: int, n_ladders: int, interval: int, rng: np.random.Generator) -> Run:
    program = ising_program(name)
    schedule = gl.TemperingSchedule(
        betas=np.linspace(0.15, 0.9, n_temperatures),
        n_ladders=n_ladders,
        n_samples=4,
        n_warmup=1,
        sweeps_per_sample=2,
        swap_interval=interval,
    )
    n = program.n_sites
    clamp = rng.choice(np.array([-1, 0, 0, 0, 1], np.int8), (1, n)) if rng.random() < 0.5 else None
    fields = rng.normal(size=(1, n)) if rng.random() < 0.3 and name != "torus" else None
    initial = pack_spins(rng.choice(np.array([-1, 1], np.int8), (schedule.n_chains, n))) if rng.random() < 0.5 else None
    return make_run(
        program,
        schedule,
        seed=SEED,
        clamp=clamp,
        fields=fields,
        initial=initial,
        observe={"samples", "moments"},
    )


# one temperature per word, two words, and several in a word; few chains take site planes
SIZES = [(2, 32, 1), (3, 64, 2), (5, 7, 1), (2, 1, 1), (4, 1, 3), (40, 3, 1), (3, 33, 2)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_body_exchanges_the_same_states(size, monkeypatch):
    for turn, name in enumerate(("torus", "glass", "odd cycle", "32-bit", "no edges", "bipartite", "dense")):
        rng = np.random.default_rng([turn, *size])
        run = tempered_run(name, *size, rng)
        wanted = run_whole("reference", ising_program(name), run)
        assert wanted.exchanges is not None
        assert wanted.exchanges[:, 0].sum() > 0
        threads = THREADS if turn < 2 else [1 + turn % 3]
        bodies = list(itertools.product(core.AVAILABLE_ISA, threads))
        fits = size[1] % 32 == 0 or run.layout == 1
        assert_bodies_agree(ising_program(name), run, wanted, bodies, monkeypatch, (name, size), forced=fits)
        if run.layout == 0:
            exact = run_whole("core", ising_program(name), replace(run, kernel="exact", threads=2))
            np.testing.assert_array_equal(exact.samples, wanted.samples)
            np.testing.assert_array_equal(exact.exchanges, wanted.exchanges)


@every_isa
@pytest.mark.parametrize(
    ("name", "n_ladders", "kernel", "otherwise"),
    [
        ("torus", 32, "bits", "bits"),
        ("torus", 64, "bits", "bits"),
        ("torus", 33, "exact", "exact"),
        ("odd cycle", 64, "bytes", "exact"),
        ("bipartite", 32, "filter", "exact"),
        ("dense", 64, "dense", "dense"),
        ("torus", 1, "diagonals", "sites"),
    ],
)
def test_the_kernel_follows_from_the_ladders(isa, name, n_ladders, kernel, otherwise):
    run = replace(tempered_run(name, 3, n_ladders, 1, np.random.default_rng(0)), isa=isa, fields=None)
    found = run_whole("core", ising_program(name), run).kernel
    assert found == f"ising, {kernel if has_kernel(isa, kernel) else otherwise}"


def test_a_tempered_run_has_no_shards():
    run = tempered_run("torus", 2, 32, 1, np.random.default_rng(0))
    for broken in (
        replace(run, first_chain=32),
        replace(run, n_chains=32),
        replace(run, exchange=Exchange(32, 0)),
        replace(run, exchange=Exchange(16, 1)),
        replace(run, b=run.b[::-1].copy()),
    ):
        with pytest.raises(InvalidModelError, match="refused"):
            run_whole("core", ising_program("torus"), replace(broken, initial=None, clamp=None))


def test_exchanges_beyond_sweep_2_to_the_32(monkeypatch):
    """The sweep's upper half is in the key."""
    run = tempered_run("glass", 3, 32, 1, np.random.default_rng(1))
    begin = 2**32 - 3
    start = np.zeros((run.n_chains, 8), np.uint8)
    run = replace(run, first_sweep=begin, n_warmup=begin - 1, initial=start, fields=None, clamp=None)
    wanted = run_whole("reference", ising_program("glass"), run)
    assert_bodies_agree(ising_program("glass"), run, wanted, [("portable", 1)], monkeypatch, "2^32")


# Laws


def model_of(n: int, seed: int) -> gl.IsingModel:
    rng = np.random.default_rng(seed)
    pairs = list(itertools.combinations(range(n), 2))
    return gl.IsingModel(rng.integers(-2, 3, n) / 4, pairs, rng.integers(-4, 5, len(pairs)) / 4)


def power_against(wrong: NDArray[np.float64], right: NDArray[np.float64], n: int) -> float:
    """The probability that chi_square at ALPHA notices n samples of `wrong`."""
    rare = right * n < 10
    a, b = np.append(wrong[~rare], wrong[rare].sum()), np.append(right[~rare], right[rare].sum())
    a, b = a[b > 0], b[b > 0]
    return float(ncx2.sf(chi2.isf(ALPHA, len(b) - 1), len(b) - 1, n * float(((a - b) ** 2 / b).sum())))


def swept(law: NDArray[np.float64], model: gl.IsingModel, betas: list[float]) -> NDArray[np.float64]:
    """A joint law (2^n,) * temperatures after one heat-bath sweep of each temperature."""
    n, size = model.n_sites, 2**model.n_sites
    energies = ExactLaw(model, 1.0).energies.reshape((2,) * n)
    for k, beta in enumerate(betas):
        moved = np.moveaxis(law, k, -1)
        shape = moved.shape
        p = moved.reshape(-1, *(2,) * n)
        for site in compiled(model).order.site.tolist():
            weight = np.exp(-beta * (energies - energies.min(axis=site, keepdims=True)))
            p = p.sum(axis=1 + site, keepdims=True) * (weight / weight.sum(axis=site, keepdims=True))[None]
        law = np.moveaxis(p.reshape(shape), -1, k)
    assert law.shape == (size,) * len(betas)
    return law


def exchanged(law: NDArray[np.float64], model: gl.IsingModel, betas: list[float], first: int, sign: int = 1) -> Any:
    """A joint law after the exchanges of pairs first, first + 2, ...: accepted with min(1, exp(dbeta dE))."""
    energies = ExactLaw(model, 1.0).energies
    for k in range(first, len(betas) - 1, 2):
        log_ratio = sign * (betas[k + 1] - betas[k]) * (energies[None, :] - energies[:, None])  # [state k, state k + 1]
        accept = np.exp(np.minimum(0.0, log_ratio))
        shape = [1] * len(betas)
        shape[k] = shape[k + 1] = len(energies)
        accepted = law * accept.reshape(shape)
        law = law - accepted + np.swapaxes(accepted, k, k + 1)
    return law


def joint(states: NDArray[np.int8], n_temperatures: int) -> NDArray[np.int64]:
    """Counts of joint states from last states (n_chains, n): one joint state a ladder."""
    codes = ((states + 1) // 2).astype(np.int64) @ (2 ** np.arange(states.shape[1] - 1, -1, -1))
    size = 2 ** states.shape[1]
    index = np.zeros(len(states) // n_temperatures, dtype=np.int64)
    for each in codes.reshape(n_temperatures, -1):
        index = index * size + each
    return np.bincount(index, minlength=size**n_temperatures)


@pytest.mark.parametrize(("betas", "sweeps"), [([0.3, 1.4], 1), ([0.3, 1.4], 4), ([0.2, 0.8, 1.6], 3)])
def test_the_joint_law_after_few_sweeps(device, betas, sweeps):
    """Sweeps and exchanges multiplied out exactly. Would notice, with 0.99: a wrong sign, none made, all made."""
    model, ladders = model_of(4 if len(betas) == 2 else 3, seed=4), 200_000
    schedule = gl.TemperingSchedule(betas=betas, n_ladders=ladders, n_samples=1, n_warmup=sweeps - 1)
    result = device.submit(model, schedule, observe="last").result()
    laws: dict[str, Any] = {}
    for name in ("right", "sign", "none", "all", "parity"):
        law = np.full((2**model.n_sites,) * len(betas), 1.0)
        law /= law.sum()
        for sweep in range(sweeps):
            law = swept(law, model, betas)
            if name == "all":
                law = exchanged(law, model, [0.0] * len(betas), sweep % 2)
            elif name != "none":
                first = (sweep + 1) % 2 if name == "parity" else sweep % 2
                law = exchanged(law, model, betas, first, -1 if name == "sign" else 1)
        laws[name] = law.ravel()
    for name in ("sign", "none", "all", "parity"):
        assert power_against(laws[name], laws["right"], ladders) > POWER, name
    outcome = chi_square(joint(result.last, len(betas)), laws["right"])
    assert outcome.p_value > ALPHA, outcome


def test_the_joint_law_at_equilibrium_is_the_product(device):
    """Three temperatures of a frustrated model: independent laws, each at its own beta, 100,000 ladders."""
    betas, model, ladders = [0.3, 0.7, 1.2], model_of(3, seed=5), 100_000
    schedule = gl.TemperingSchedule(betas=betas, n_ladders=ladders, n_samples=1, n_warmup=60, swap_interval=3)
    result = device.submit(model, schedule, observe="last").result()
    each = [ExactLaw(model, beta).probabilities for beta in betas]
    product = np.einsum("i,j,k->ijk", *each)
    stationary = exchanged(swept(product, model, betas), model, betas, 0)
    assert np.abs(stationary - product).max() < 1e-15  # the oracle itself knows what it should
    flipped = product
    for sweep in range(200):
        flipped = exchanged(swept(flipped, model, betas), model, betas, sweep % 2, sign=-1)
    assert power_against(flipped.ravel(), product.ravel(), ladders) > POWER, "a flipped sign"
    outcome = chi_square(joint(result.last, 3), product.ravel())
    assert outcome.p_value > ALPHA, outcome
    for k, beta in enumerate(betas):
        part = result.temperature(k)
        assert part.provenance.beta == beta
        assert chi_square(ExactLaw(model, beta).counts(part.last), each[k]).p_value > ALPHA


@pytest.mark.slow
def test_exchange_rates_are_exact(device):
    """Accepted shares against sum P(s) P'(s') min(1, exp(dbeta dE)) under the product law, at alpha for each pair.

    Rounds in equilibrium are correlated in time, so z counts one round of many independent ladders. Power: a rate off
    by 1 % would move z by more than 4.9 + 2.4.
    """
    betas, model, ladders = [0.2, 0.6, 1.1, 1.3], model_of(4, seed=6), 1_000_000
    schedule = gl.TemperingSchedule(betas=betas, n_ladders=ladders, n_samples=1, n_warmup=59, swap_interval=30)
    result = device.submit(model, schedule, observe="last").result()
    assert result.exchanges is not None
    assert result.exchanges.tried.tolist() == [ladders] * 3  # after sweep 30 the even pairs, after sweep 60 the odd one
    energies = ExactLaw(model, 1.0).energies
    for k in range(3):
        p, q = (ExactLaw(model, beta).probabilities for beta in betas[k : k + 2])
        accept = np.exp(np.minimum(0, (betas[k + 1] - betas[k]) * (energies[None] - energies[:, None])))
        rate = float(p @ accept @ q)
        error = math.sqrt(rate * (1 - rate) / ladders)
        assert 0.01 * rate > (norm.isf(ALPHA / 2) + norm.isf(0.01)) * error
        assert abs(result.exchanges.rates[k] - rate) < norm.isf(ALPHA / 2) * error


def test_a_cold_chain_alone_would_be_stuck(device):
    """Two deep wells: at beta 3 a chain from one well stays; tempered, it has both wells at the right odds."""
    n = 6
    edges = list(itertools.combinations(range(n), 2))
    model = gl.IsingModel(np.full(n, 0.02), edges, np.full(len(edges), 0.5))
    start, betas = np.full(n, -1), (0.1, 0.3, 0.6, 1.0, 1.7, 3.0)
    alone = gl.SamplingSchedule(n_samples=1, n_chains=4096, n_warmup=400, beta=3.0)
    stuck = device.submit(model, alone, initial=start, observe="last").result()
    assert (stuck.last.sum(axis=1) < 0).mean() > 0.99
    schedule = gl.TemperingSchedule(betas=betas, n_ladders=4096, n_samples=1, n_warmup=400)
    result = device.submit(model, schedule, initial=start, observe="last").result()
    law = ExactLaw(model, 3.0)
    assert chi_square(law.counts(result.temperature(-1).last), law.probabilities).p_value > ALPHA


class FlippedSign(SimulatorDriver):
    """The negative control: the reference with the temperatures of every exchange turned round."""

    def run(self, run: Run) -> Iterator[Batch]:
        right = moves.exchange

        def wrong(run: Run, sweep: int, energies: NDArray[np.int64]) -> Any:
            return right(run, sweep, -energies)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("glauber_simulator.reference.exchange", wrong)
            yield from super().run(run)


@pytest.mark.parametrize("wrong", [False, True])
def test_a_flipped_sign_is_found_out(wrong):
    """The test of the joint law passes the right reference and fails the wrong one."""
    betas, model, ladders = [0.2, 1.6], model_of(3, seed=5), 4000
    with gl.open_device("sim://ideal") as ideal:
        spec = ideal.spec
    driver = FlippedSign(spec, "reference") if wrong else SimulatorDriver(spec, "reference")
    schedule = gl.TemperingSchedule(betas=betas, n_ladders=ladders, n_samples=1, n_warmup=6)
    with gl.Device(driver, seed=3) as device:
        result = device.submit(model, schedule, observe="last").result()
    law = np.full((8, 8), 1 / 64)
    turned = law
    for sweep in range(7):
        law = exchanged(swept(law, model, betas), model, betas, sweep % 2)
        turned = exchanged(swept(turned, model, betas), model, betas, sweep % 2, sign=-1)
    assert power_against(turned.ravel(), law.ravel(), ladders) > POWER
    assert (chi_square(joint(result.last, 2), law.ravel()).p_value > ALPHA) == (not wrong)


# The ladder


def test_a_ladder_exchanges_about_evenly(device):
    """A 16 x 16 ferromagnet through its critical point: every rate within a factor 1.6 of erfc(0.8) = 0.26."""
    at = np.arange(256).reshape(16, 16)
    edges = np.concatenate([np.stack([at, np.roll(at, -1, axis)], axis=2).reshape(-1, 2) for axis in (0, 1)])
    model = gl.IsingModel(np.zeros(256), edges, np.ones(512))
    betas = gl.tempering_ladder(device, model, 0.1, 0.8, seed=5)
    assert betas[0] == 0.1
    assert betas[-1] == 0.8
    schedule = gl.TemperingSchedule(betas=betas, n_ladders=32, n_samples=1, n_warmup=2000)
    result = device.submit(model, schedule, observe="last").result()
    assert result.exchanges is not None
    rates = result.exchanges.rates
    assert len(betas) >= 8
    assert rates.min() > math.erfc(0.8) / 1.6, rates
    assert rates.max() < math.erfc(0.8) * 1.6, rates
    # evenly spaced betas would not do
    even = replace_betas(schedule, np.linspace(0.1, 0.8, len(betas)))
    exchanges = device.submit(model, even, observe="last").result().exchanges
    assert exchanges is not None
    assert exchanges.rates.min() < rates.min() / 2


def replace_betas(schedule: gl.TemperingSchedule, betas: NDArray[np.float64]) -> gl.TemperingSchedule:
    return gl.TemperingSchedule(betas=betas, n_ladders=schedule.n_ladders, n_samples=1, n_warmup=schedule.n_warmup)


def test_a_ladder_of_a_given_length_and_of_a_flat_model(device):
    flat = gl.IsingModel(np.zeros(3), [(0, 1)], [0.0])
    betas = gl.tempering_ladder(device, flat, 0.0, 2.0, 5)
    assert len(betas) == 5
    assert all(a < b for a, b in itertools.pairwise(betas))
    assert len(gl.tempering_ladder(device, flat, 0.0, 2.0)) == 2


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((1.0, 0.5), "below beta_max"),
        ((-1.0, 0.5), "not negative"),
        ((0.1, math.inf), "finite"),
        ((0.1, "cold"), "finite"),
        ((0.1, 1.0, 1), "n_temperatures"),
    ],
)
def test_a_ladder_that_cannot_be(device, arguments, match):
    with pytest.raises(InvalidModelError, match=match):
        gl.tempering_ladder(device, model_of(3, seed=1), *arguments)


# What is refused, what is reported


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"betas": (0.5,)}, "at least 2"),
        ({"betas": (0.5, 0.5)}, "ascend"),
        ({"betas": (1.0, 0.5)}, "ascend"),
        ({"betas": (0.5, math.nan)}, "betas"),
        ({"betas": (0.5, 1.0), "n_ladders": 0}, "n_ladders"),
        ({"betas": (0.5, 1.0), "n_ladders": 2**30 + 1}, "chains"),
        ({"betas": (0.5, 1.0), "swap_interval": 0}, "swap_interval"),
        ({"betas": (0.5, 1.0), "n_warmup": 2**47, "n_samples": 2**48 - 1}, "sweeps in all"),
    ],
)
def test_a_schedule_that_cannot_be(arguments, match):
    with pytest.raises(InvalidModelError, match=match):
        gl.TemperingSchedule(**arguments)


def test_what_would_differ_between_chains_is_refused(device):
    schedule = gl.TemperingSchedule(betas=(0.5, 1.0))
    model = model_of(3, seed=1)
    for wrong in ({"fields": np.zeros((2, 3))}, {"clamp": np.zeros((2, 3), dtype=int)}):
        with pytest.raises(InvalidModelError, match="differs between chains"):
            device.submit(model, schedule, **wrong)
    potts = gl.PottsModel(np.zeros((2, 3)), [(0, 1)], [1.0])
    with pytest.raises(ModelNotSupportedError, match="Ising models"):
        device.submit(potts, schedule)


@pytest.mark.parametrize("address", ["sim://kv260", "sim://dwave-advantage-system4"])
def test_devices_without_a_beta_of_their_own_are_refused(address):
    schedule = gl.TemperingSchedule(betas=(0.5, 1.0))
    with gl.open_device(address) as device, pytest.raises(ModelNotSupportedError, match="SamplingSchedule"):
        device.submit(gl.IsingModel.from_edges([(0, 1, 1.0)]), schedule)


def test_the_result_knows_its_temperatures(device, tmp_path):
    schedule = gl.TemperingSchedule(betas=(0.2, 0.5, 1.0), n_ladders=4, n_samples=50, n_warmup=10, swap_interval=2)
    observe = {"samples", "moments", "energies"}
    result = device.submit(model_of(5, seed=2), schedule, observe=observe).result()
    assert result.spins.shape == (12, 50, 5)
    assert result.exchanges is not None
    assert result.exchanges.tried.tolist() == [60, 60]  # 30 rounds, the pairs in turn, four ladders
    with pytest.raises(InvalidModelError, match="temperature"):
        result.diagnostics()
    cold = result.temperature(2)
    np.testing.assert_array_equal(cold.spins, result.spins[8:])
    np.testing.assert_array_equal(cold.energies, result.energies[8:])
    assert cold.moments is not None
    np.testing.assert_array_equal(cold.moments.sites, cold.spins.sum(axis=1, dtype=np.int64))
    assert cold.diagnostics().beta_asked == 1.0
    with pytest.raises(InvalidModelError, match="temperature"):
        result.temperature(3)
    result.save(tmp_path / "tempered.npz")
    again = gl.SampleSet.load(tmp_path / "tempered.npz")
    assert again.exchanges is not None
    np.testing.assert_array_equal(again.exchanges.made, result.exchanges.made)
    np.testing.assert_array_equal(again.temperature(-1).spins, cold.spins)
    plain = device.submit(model_of(5, seed=2)).result()
    assert plain.exchanges is None
    with pytest.raises(InvalidModelError, match="TemperingSchedule"):
        plain.temperature(0)


def test_a_request_is_the_same_after_saving(tmp_path):
    request = gl.JobRequest(model_of(3, seed=1), gl.TemperingSchedule(betas=(0.2, 0.5), n_ladders=3))
    request.save(tmp_path / "request.npz")
    assert gl.JobRequest.load(tmp_path / "request.npz").key == request.key
