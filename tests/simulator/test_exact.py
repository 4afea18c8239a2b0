"""The simulator draws from the law that it says: exact enumeration, exact transients, and Kaufman's finite torus.

Alpha is 1e-6 for every chi-square and seeds are fixed, so a test that passes keeps passing. Each test also computes the
power of its own chi-square against named faults (statistics.md: beta + 5 %, one dead p-bit, one dropped coupling) and
demands 0.99: a test without power does not count.

Pearson's test needs independent samples. Three ways to have them are used, and each is justified where it is used:
the last states of many independent chains (no correlation at all); few chains thinned until the exact kernel's second
eigenvalue says that nothing is left; and, for the equilibrium tests, a warm-up after which the *exact* distance to
equilibrium (computed by sweeping the law itself) is too small for the sample size to see.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import glauber as gl
import numpy as np
import pytest
from bodies import compiled
from glauber.compile import AnyProgram, PottsProgram, Program, make_run
from glauber.testing import ExactLaw
from glauber.testing.transition import sweep_matrix
from glauber_simulator import arithmetic
from laws import POWER, assert_draws, invisible, ising_model, named_faults, order_of, power_against, swept
from numpy.typing import NDArray


@pytest.fixture
def device() -> Iterator[gl.Device]:
    """A device of its own for each test: job seeds count from the device's, so tests cannot move one another."""
    with gl.open_device("sim://ideal?seed=20240601") as opened:
        yield opened


def programmed(result: gl.SampleSet) -> Any:
    assert result.program is not None
    return result.program.as_model()


# Ising, at equilibrium


@pytest.mark.parametrize(
    ("n", "n_edges", "fields", "beta", "n_chains", "warmup"),
    [(8, 14, True, 0.6, 100_000, 60), (10, 18, True, 0.5, 200_000, 60), (12, 20, False, 0.5, 200_000, 80)],
)
def test_last_states_of_many_chains(device, n, n_edges, fields, beta, n_chains, warmup):
    """Independent because each chain gives one state; replica planes."""
    model = ising_model(n, n_edges, seed=n, fields=fields)
    schedule = gl.SamplingSchedule(n_samples=1, n_chains=n_chains, n_warmup=warmup, beta=beta)
    result = device.submit(model, schedule, observe="last").result()
    law = ExactLaw(programmed(result), beta)
    assert invisible(swept(law, np.full(warmup, beta), order_of(model)), law.probabilities, n_chains)
    for name, wrong in named_faults(model, beta):
        assert power_against(wrong, law.probabilities, n_chains) > POWER, name
    assert_draws(result.last, law)


@pytest.mark.parametrize(("n_chains", "n_samples", "thin"), [(4, 25_000, 12), (40, 2_500, 12)])
def test_thinned_samples_of_few_chains(device, n_chains, n_samples, thin):
    """Four chains take site planes, forty take replica planes.

    What is left of a correlation after `thin` sweeps is at most the second eigenvalue of the exact sweep, to that
    power, in every direction; Pearson's statistic then grows by a factor of 1 + 2 r / (1 - r) at most. Below 1.002 that
    is half a unit for 255 degrees of freedom, whose statistic scatters by 23: alpha does not move.
    """
    model, beta = ising_model(8, 14, seed=8), 0.4
    program = compiled(model)
    left = abs(np.sort(np.abs(np.linalg.eigvals(np.linalg.matrix_power(ising_kernel(program, beta), thin))))[-2])
    assert 1 + 2 * left / (1 - left) < 1.002
    schedule = gl.SamplingSchedule(
        n_samples=n_samples, n_chains=n_chains, n_warmup=60, sweeps_per_sample=thin, beta=beta
    )
    result = device.submit(model, schedule).result()
    law = ExactLaw(programmed(result), beta)
    for name, wrong in named_faults(model, beta):
        assert power_against(wrong, law.probabilities, n_chains * n_samples) > POWER, name
    assert_draws(result.spins, law)
    np.testing.assert_array_equal(result.last, result.spins[:, -1])


def test_clamped_spins_condition_the_others(device):
    """Last states of independent chains; a state the clamp forbids would be an error in itself."""
    model, beta, n = ising_model(10, 18, seed=3), 0.5, 100_000
    schedule = gl.SamplingSchedule(n_samples=1, n_chains=n, n_warmup=60, beta=beta)
    result = device.submit(model, schedule, clamp={2: 1, 7: -1}, observe="last").result()
    law = ExactLaw(programmed(result), beta, ((2, 1), (7, -1)))
    free = order_of(model)
    assert invisible(swept(law, np.full(60, beta), free[(free != 2) & (free != 7)]), law.probabilities, n)
    other = ExactLaw(model, beta, ((2, 1), (7, 1))).probabilities
    assert power_against(other, law.probabilities, n) > POWER, "a clamp of the wrong sign"
    assert_draws(result.last, law)


def test_clamps_of_each_chain(device):
    """Three groups of chains with clamps of their own, interleaved so that they share the machine's words."""
    model, beta, per_group = ising_model(9, 14, seed=4), 0.5, 40_000
    groups: list[dict[int, int]] = [{}, {0: 1}, {0: -1, 5: 1, 8: 1}]
    clamp = np.zeros((3 * per_group, 9), dtype=np.int8)
    for group, held in enumerate(groups):
        for site, value in held.items():
            clamp[group::3, site] = value
    schedule = gl.SamplingSchedule(n_samples=1, n_chains=len(clamp), n_warmup=60, beta=beta)
    result = device.submit(model, schedule, clamp=clamp, observe="last").result()
    for group, held in enumerate(groups):
        assert_draws(result.last[group::3], ExactLaw(programmed(result), beta, tuple(held.items())))


@pytest.mark.parametrize("edges", [14, 0], ids=["coupled", "no edges"])
def test_fields_of_each_chain(device, edges):
    """One law per group of chains; without edges the chains run in site planes, with them in replica planes.

    The fields are halves and quarters, so that rounding to the program's step changes nothing and the group's law is
    that of the user's own numbers; with 16-bit couplings the step would be a part in 32767.
    """
    rng = np.random.default_rng(5)
    model = ising_model(8, edges, seed=5) if edges else gl.IsingModel(np.zeros(8), np.zeros((0, 2)), np.zeros(0))
    model = model.replace(fields=np.zeros(8), couplings=np.round(4 * model.couplings) / 4)
    rows, beta, per_group = rng.integers(-4, 5, size=(4, 8)) / 4, 0.6, 40_000
    # one sweep is all that spins without neighbours need
    schedule = gl.SamplingSchedule(n_samples=1, n_chains=4 * per_group, n_warmup=60 if edges else 0, beta=beta)
    result = device.submit(model, schedule, fields=np.tile(rows, (per_group, 1)), observe="last").result()
    assert result.provenance.quantisation.exact
    laws = [ExactLaw(model.replace(fields=row), beta) for row in rows]
    for group, law in enumerate(laws):
        for other in range(4):
            if other != group:
                assert power_against(laws[other].probabilities, law.probabilities, per_group) > POWER
        assert_draws(result.last[group::4], law)


def test_a_given_start_is_forgotten(device):
    """All chains start in the same, unlikely state; the exact law says when that no longer shows."""
    model, beta, n = ising_model(8, 14, seed=6), 0.5, 100_000
    law = ExactLaw(model, beta)
    worst = law.states[law.probabilities.argmin()]
    point = np.zeros(256)
    point[law.probabilities.argmin()] = 1.0
    for sweeps, forgotten in ((2, False), (60, True)):
        schedule = gl.SamplingSchedule(n_samples=1, n_chains=n, n_warmup=sweeps - 1, beta=beta)
        result = device.submit(model, schedule, initial=worst, observe="last").result()
        law = ExactLaw(programmed(result), beta)
        transient = swept(law, np.full(sweeps, beta), order_of(model), point)
        assert invisible(transient, law.probabilities, n) == forgotten
        assert_draws(result.last, law, transient)


# Transients: every sweep, temperature and order counts


def test_the_law_after_few_sweeps(device):
    """After two sweeps from a random start the law is far from equilibrium, and exactly known."""
    model, beta, n = ising_model(8, 14, seed=7), 0.9, 100_000
    result = device.submit(
        model, gl.SamplingSchedule(n_samples=1, n_chains=n, n_warmup=1, beta=beta), observe="last"
    ).result()
    law, order = ExactLaw(programmed(result), beta), order_of(model)
    laws = {sweeps: swept(law, np.full(sweeps, beta), order) for sweeps in (1, 2, 3)}
    for wrong in (laws[1], laws[3], law.probabilities, swept(law, np.full(2, beta), order[::-1])):
        assert power_against(wrong, laws[2], n) > POWER, "one sweep less, one more, equilibrium, or another order"
    assert_draws(result.last, law, laws[2])


@pytest.mark.parametrize(
    ("schedule", "betas"),
    [
        (gl.AnnealingSchedule(table=(0.8, 0.4, 1.5), n_chains=100_000), (0.8, 0.4, 1.5)),
        (
            gl.AnnealingSchedule(n_sweeps=4, beta_start=0.25, beta_end=2.0, shape="geometric", n_chains=100_000),
            (0.25, 0.5, 1.0, 2.0),
        ),
        (
            gl.AnnealingSchedule(n_sweeps=3, beta_start=0.5, beta_end=1.5, shape="linear", n_chains=100_000),
            (0.5, 1.0, 1.5),
        ),
    ],
    ids=["table", "geometric", "linear"],
)
def test_annealing_ends_in_the_exact_transient_law(device, schedule, betas):
    """A short anneal of five frustrated spins; its law is the product of its sweeps, not Boltzmann's at the end."""
    model = ising_model(5, 9, seed=10)
    result = device.submit(model, schedule, observe="last").result()
    law, order, betas = ExactLaw(programmed(result), betas[-1]), order_of(model), np.array(betas)
    expected = swept(law, betas, order)
    wrong = {
        "equilibrium": law.probabilities,
        "last sweep missing": swept(law, betas[:-1], order),
        "first sweep missing": swept(law, betas[1:], order),
        "betas reversed": swept(law, betas[::-1], order),
        "beta + 5 %": swept(law, 1.05 * betas, order),
    }
    for name, other in wrong.items():
        assert power_against(other, expected, schedule.n_chains) > POWER, name
    assert_draws(result.last, law, expected)


def test_annealing_in_site_planes(device):
    """Four chains a job, so many jobs: their seeds are derived from the device's and must give independent anneals."""
    model = gl.IsingModel.from_edges([(0, 1, 1.0), (1, 2, 1.0), (0, 2, 1.0)], {0: 0.5})
    schedule = gl.AnnealingSchedule(table=(0.6, 1.0), n_chains=4)
    jobs = [device.submit(model, schedule, observe="last") for _ in range(500)]
    states = np.concatenate([job.result().last for job in jobs])
    law = ExactLaw(programmed(jobs[0].result()), 1.0)
    expected = swept(law, np.array([0.6, 1.0]), order_of(model))
    assert power_against(swept(law, np.array([1.0]), order_of(model)), expected, len(states)) > POWER
    assert_draws(states, law, expected)


# Devices with less precision: the law of the programmed model


@pytest.mark.parametrize("address", ["sim://ideal?weight_bits=3&seed=1", "sim://kv260?weight_bits=5&seed=2"])
def test_the_programmed_law_is_what_a_coarse_device_draws(address):
    """3 bits on the ideal device; kv260 takes beta by scaling its coefficients, so beta decides what is rounded how."""
    rng = np.random.default_rng(10)
    beta, n = 0.7, 100_000
    row = np.array([(i, i + 1) for i in range(7)])  # fits the first row of kv260's grid
    model = gl.IsingModel(rng.uniform(-1.5, 1.5, 8), row, rng.uniform(0.6, 2.0, 7))
    with gl.open_device(address) as device:
        assert ("kv260" in address) == (device.spec.capabilities.beta == "folded")
        schedule = gl.SamplingSchedule(n_samples=1, n_chains=n, n_warmup=300, beta=beta)
        result = device.submit(model, schedule, observe="last").result()
    law = ExactLaw(programmed(result), beta)
    assert result.program is not None
    assert invisible(swept(law, np.full(300, beta), result.program.order.site), law.probabilities, n)
    asked = ExactLaw(model, beta).probabilities
    assert not result.provenance.quantisation.exact
    assert power_against(asked, law.probabilities, n) > POWER, "rounding would not show, so this would show nothing"
    assert_draws(result.last, law)


def test_a_folded_beta_is_beta():
    """Where folding loses nothing the law is the user's own: couplings and fields that stay on the chip's step."""
    beta, n = 0.5, 100_000
    model = gl.IsingModel(
        [0.5, -1.0, 0.0, 0.25, 0.5, 0.0, 1.0, -0.5], [(i, i + 1) for i in range(7)], [1.0, -1.5] * 3 + [2.0]
    )
    with gl.open_device("sim://kv260?seed=3") as device:
        schedule = gl.SamplingSchedule(n_samples=1, n_chains=n, n_warmup=100, beta=beta)
        result = device.submit(model, schedule, observe="last").result()
    law = ExactLaw(model, beta)
    np.testing.assert_allclose(programmed(result).couplings, model.couplings, rtol=1e-12)
    assert power_against(ExactLaw(model, 1.0).probabilities, law.probabilities, n) > POWER, "beta left out"
    assert power_against(ExactLaw(model, beta**2).probabilities, law.probabilities, n) > POWER, "beta taken twice"
    assert power_against(ExactLaw(model, 1.05 * beta).probabilities, law.probabilities, n) > POWER
    assert_draws(result.last, law)


# Potts


def potts_model(kind: str) -> gl.PottsModel:
    """Five sites of three states with an odd cycle; tables are asymmetric and one edge is given turned round."""
    rng = np.random.default_rng(21)
    edges = np.array([(0, 1), (2, 1), (0, 2), (2, 3), (3, 4)])
    couplings = {"weights": (5,), "shared table": (3, 3), "tables": (5, 3, 3), "mask": (5, 3, 3)}[kind]
    allowed = None
    if kind == "mask":
        allowed = np.ones((5, 3), dtype=bool)
        allowed[[0, 2, 2, 4], [1, 0, 1, 2]] = False
    return gl.PottsModel(rng.normal(size=(5, 3)) * 0.5, edges, rng.normal(size=couplings), allowed)


@pytest.mark.parametrize("kind", ["weights", "shared table", "tables", "mask"])
def test_potts_at_equilibrium(device, kind):
    """243 states, one from each of 60,000 independent chains."""
    model, beta, n = potts_model(kind), 0.8, 60_000
    schedule = gl.SamplingSchedule(n_samples=1, n_chains=n, n_warmup=40, beta=beta)
    result = device.submit(model, schedule, observe="last").result()
    law = ExactLaw(programmed(result), beta)
    assert invisible(swept(law, np.full(40, beta), order_of(model)), law.probabilities, n)
    assert power_against(ExactLaw(model, 1.05 * beta).probabilities, law.probabilities, n) > POWER
    for k in range(model.n_edges):
        tables = model.edge_tables().copy()
        tables[k] = 0.0
        dropped = gl.PottsModel(model.fields, model.edges, tables, model.allowed)
        assert power_against(ExactLaw(dropped, beta).probabilities, law.probabilities, n) > POWER, k
        turned = model.edge_tables().copy()
        turned[k] = turned[k].T
        if not np.array_equal(turned, model.edge_tables()):
            wrong = gl.PottsModel(model.fields, model.edges, turned, model.allowed)
            assert power_against(ExactLaw(wrong, beta).probabilities, law.probabilities, n) > POWER, k
    assert_draws(result.last, law)


def test_potts_clamps_and_fields_of_each_chain(device):
    """Two groups of chains, interleaved, with fields and clamps of their own; fields and couplings are quarters."""
    rng = np.random.default_rng(22)
    edges = [(0, 1), (1, 2), (0, 2), (2, 3)]
    model = gl.PottsModel(np.zeros((4, 3)), edges, [0.75, -0.5, 1.0, 0.5])
    rows, per_group, beta = rng.integers(-4, 5, size=(2, 4, 3)) / 4, 40_000, 0.7
    clamp = np.full((2 * per_group, 4), -1)
    clamp[1::2, 3] = 2
    schedule = gl.SamplingSchedule(n_samples=1, n_chains=2 * per_group, n_warmup=40, beta=beta)
    result = device.submit(
        model, schedule, fields=np.tile(rows, (per_group, 1, 1)), clamp=clamp, observe="last"
    ).result()
    assert result.provenance.quantisation.exact
    for group, held in enumerate([(), ((3, 2),)]):
        law = ExactLaw(gl.PottsModel(rows[group], edges, model.couplings), beta, held)
        assert_draws(result.last[group::2], law)


@pytest.mark.parametrize("kind", ["weights", "tables"])
def test_potts_annealing_ends_in_the_exact_transient_law(device, kind):
    model = potts_model(kind)
    schedule = gl.AnnealingSchedule(table=(0.9, 1.5), n_chains=60_000)
    result = device.submit(model, schedule, observe="last").result()
    law, betas = ExactLaw(programmed(result), 1.5), np.array([0.9, 1.5])
    expected = swept(law, betas, order_of(model))
    for wrong in (law.probabilities, swept(law, betas[1:], order_of(model)), swept(law, 1.05 * betas, order_of(model))):
        assert power_against(wrong, expected, schedule.n_chains) > POWER
    assert_draws(result.last, law, expected)


# The kernel itself: transition matrices from the reference's integers


def ising_conditional(program: Program, beta: float) -> Any:
    """P(s_i = -1, +1 | the others) as the reference decides it: T / 2^32."""
    run = make_run(program, gl.SamplingSchedule(beta=beta), seed=0)
    dense = np.zeros((program.n_sites, program.n_sites), dtype=np.int64)
    for (i, j), w in zip(program.edges, program.edge_weight, strict=True):
        dense[i, j] = dense[j, i] = w

    def conditional(site: int, states: NDArray[np.int64]) -> NDArray[np.float64]:
        up = arithmetic.thresholds(program.field[site] + states @ dense[site], int(run.b[0])) / 2.0**32
        return np.stack([1 - up, up], axis=1)

    return conditional


def ising_kernel(program: Program, beta: float) -> NDArray[np.float64]:
    law = ExactLaw(program.as_model(), beta)
    return sweep_matrix(law, program.order.site.tolist(), ising_conditional(program, beta))


def potts_conditional(program: PottsProgram, beta: float) -> Any:
    """P(s_i = k | the others): how many of the 2^32 words u draw k, by section 9's integers."""
    run = make_run(program, gl.SamplingSchedule(beta=beta), seed=0)
    q, tables = program.n_states, program.edge_couplings.astype(np.int64)
    if tables.ndim == 1:
        tables = tables[:, None, None] * np.eye(q, dtype=np.int64)
    shift = np.uint64(31 + (q - 1).bit_length())

    def conditional(site: int, states: NDArray[np.int64]) -> NDArray[np.float64]:
        field = np.tile(program.field[site].astype(np.int64), (len(states), 1))
        for k, (i, j) in enumerate(program.edges.tolist()):
            if i == site:
                field += tables[k].T[states[:, j]]
            if j == site:
                field += tables[k][states[:, i]]
        e = arithmetic.exp2(
            arithmetic.scale((field.max(axis=1, keepdims=True) - field).astype(np.uint64), int(run.b[0]))
        )
        sums = np.cumsum(e >> shift, axis=1, dtype=np.uint64)
        borders = -((-sums.astype(object) * 2**32) // sums[:, -1:].astype(object))  # the first u beyond state k
        return np.diff(np.array(borders, dtype=np.float64), axis=1, prepend=0.0) / 2.0**32

    return conditional


def rounding_of_b(program: AnyProgram) -> float:
    """How far rounding b to an integer can move a probability: half a unit of 2^-32 log2 a step, slope ln 2 / 4."""
    largest = int((program.weight_sum + np.abs(program.field.reshape(program.n_sites, -1)).max(axis=1)).max())
    return largest * 0.5 * 2.0**-32 * math.log(2) / 4


def assert_kernel(program: AnyProgram, beta: float, conditional: Any, error: float) -> None:
    """Stationarity, reversibility within a colour, and ergodicity, to what `error` in each conditional allows.

    An exact heat-bath update leaves the law p as it is. One whose conditionals are off by `error` moves the probability
    of a state by at most `error` times that of the states it can come from, at most twice the largest p; n updates add
    up. Float64 adds about 1e-15 times the number of states.
    """
    law = ExactLaw(program.as_model(), beta)
    p, order = law.probabilities, program.order
    whole = sweep_matrix(law, order.site.tolist(), conditional)
    q = program.n_states
    unit = q * p.max() * error
    assert np.abs(whole.sum(axis=1) - 1).max() < 1e-13
    assert np.abs(p @ whole - p).max() < program.n_sites * unit + 1e-13
    assert program.n_sites * unit < 1e-7, "the tolerance itself must stay small"
    for begin, end in itertools.pairwise(order.colour_start.tolist()):
        flow = p[:, None] * sweep_matrix(law, order.site[begin:end].tolist(), conditional)
        assert np.abs(flow - flow.T).max() < (end - begin) * unit + 1e-13
    # ergodic: every state can follow every state, since no probability is 0; and one eigenvalue 1 only
    assert whole.min() > 0
    moduli = np.sort(np.abs(np.linalg.eigvals(whole)))
    assert moduli[-1] == pytest.approx(1, abs=1e-12)
    assert moduli[-2] < 1 - 1e-6
    # not vacuous: the same law swept with 5 % more beta is seen to move by far more than the tolerance
    off = ExactLaw(program.as_model(), 1.05 * beta).probabilities
    assert np.abs(off @ whole - off).max() > 100 * (program.n_sites * unit)


@pytest.mark.parametrize(
    ("model", "beta"),
    [
        (ising_model(6, 9, seed=31), 0.7),
        (ising_model(6, 15, seed=32), 0.4),
        (ising_model(5, 4, seed=33), 2.5),
        (gl.IsingModel([0.3, -0.2, 0.0], [(0, 1), (1, 2), (0, 2)], [-1.0, -1.0, -1.0]), 1.0),
    ],
)
def test_ising_kernel_is_stationary_and_ergodic(model, beta):
    # quarters keep the integers small, so that rounding b costs as little as rounding T (2.001 units, test_contract)
    model = model.replace(fields=np.round(4 * model.fields) / 4, couplings=np.round(4 * model.couplings) / 4)
    program = compiled(model)
    error = 2.001 * 2.0**-32 + rounding_of_b(program)
    assert error < 1e-9
    assert_kernel(program, beta, ising_conditional(program, beta), error)


@pytest.mark.parametrize("tables", [False, True])
def test_potts_kernel_is_stationary_and_ergodic(tables):
    rng = np.random.default_rng(34)
    edges = [(0, 1), (1, 2), (0, 2), (2, 3)]
    couplings = rng.integers(-4, 5, size=(4, 3, 3) if tables else 4) / 4
    program = compiled(gl.PottsModel(rng.integers(-2, 3, size=(4, 3)) / 4, edges, couplings))
    # the total variation of one draw, test_contract: weights of 2^29 at scale, three of them, cut by one each
    slack = 3 + 2.02 * 2.0**-31 * 3 * 2.0**29
    error = slack / (2.0**29 - slack) + 3 * 2.0**-33 + 2 * rounding_of_b(program)
    assert_kernel(program, 0.8, potts_conditional(program, 0.8), error)


def test_swept_laws_are_the_kernels():
    """`swept`, which the transient tests rely on, against matrices made of the reference's own probabilities."""
    model = ising_model(6, 9, seed=31)
    program = compiled(model)
    law = ExactLaw(program.as_model(), 1.0)
    by_matrix = np.full(64, 1 / 64)
    for beta in (0.3, 0.9, 1.7):
        by_matrix = by_matrix @ ising_kernel(program, beta)
    # three sweeps of six conditionals, each off by 2.001 2^-32 and what rounding b costs
    bound = 3 * 6 * (2.001 * 2.0**-32 + rounding_of_b(program))
    assert np.abs(swept(law, np.array([0.3, 0.9, 1.7]), program.order.site) - by_matrix).max() < bound


# Kaufman's finite torus


def kaufman_energy(rows: int, columns: int, beta: float) -> float:
    """<E> of the ferromagnet (J = 1) on a torus, -d log Z / d beta, from Kaufman's Z (1949) by a complex step.

    Z = (2 sinh 2K)^(MN/2) / 2 * [prod 2 cosh(M g_odd / 2) + prod 2 sinh(M g_odd / 2) + the same with g_even], where
    cosh g_l = cosh 2K coth 2K - cos(pi l / N) and g_0 = 2K + log tanh K. log Z is analytic in K, so the imaginary part
    at K + 1e-30 i is the derivative with no difference taken.
    """
    k = complex(beta, 1e-30)
    c = np.cosh(2 * k) / np.tanh(2 * k)
    gamma = np.arccosh(c - np.cos(np.pi * np.arange(2 * columns) / columns) + 0j)
    gamma[0] = 2 * k + np.log(np.tanh(k))
    odd, even = gamma[1::2] * rows / 2, gamma[0::2] * rows / 2
    total = sum(np.prod(2 * f(g)) for f in (np.cosh, np.sinh) for g in (odd, even))
    log_z = rows * columns / 2 * np.log(2 * np.sinh(2 * k)) + np.log(total / 2)
    return -float(log_z.imag) / 1e-30


def torus(rows: int, columns: int) -> gl.IsingModel:
    sites = np.arange(rows * columns).reshape(rows, columns)
    right = np.stack([sites, np.roll(sites, -1, axis=1)], axis=2).reshape(-1, 2)
    down = np.stack([sites, np.roll(sites, -1, axis=0)], axis=2).reshape(-1, 2)
    edges = np.concatenate([right, down])
    return gl.IsingModel(np.zeros(rows * columns), edges, np.ones(len(edges)))


@pytest.mark.parametrize(("rows", "columns"), [(3, 4), (4, 3), (4, 4)])
@pytest.mark.parametrize("beta", [0.1, 0.3, 0.4406867935097715, 0.7])
def test_kaufmans_formula_is_right_where_it_can_be_enumerated(rows, columns, beta):
    law = ExactLaw(torus(rows, columns), beta)
    assert kaufman_energy(rows, columns, beta) == pytest.approx(float(law.probabilities @ law.energies), rel=1e-12)


@pytest.mark.parametrize("start", ["random", "aligned"])
@pytest.mark.parametrize(("size", "beta"), [(16, 0.3), (8, 0.44)])
def test_energy_of_the_square_lattice(device, size, beta, start):
    """|z| < 4 against Kaufman, alpha 8e-5: chains are independent, so their 256 means give the standard error.

    16 x 16 off criticality, 8 x 8 near it, from both kinds of start. At 0.44 a start is forgotten in about L^2 = 64
    sweeps; 1000 are given. Power: a beta off by 1 % would move z by more than 4 + 2.33, so it is seen with 0.99.
    """
    model, chains = torus(size, size), 256
    schedule = gl.SamplingSchedule(n_samples=200, n_chains=chains, n_warmup=1000, sweeps_per_sample=3, beta=beta)
    initial = None if start == "random" else np.ones(size * size, dtype=np.int8)
    result = device.submit(model, schedule, initial=initial, observe="moments").result()
    assert result.moments is not None
    assert result.moments.edges is not None
    energies = -result.moments.edges.sum(axis=1) / result.moments.n_samples
    error = energies.std(ddof=1) / math.sqrt(chains)
    exact = kaufman_energy(size, size, beta)
    assert abs(kaufman_energy(size, size, 1.01 * beta) - exact) > (4 + 2.33) * error
    assert abs(energies.mean() - exact) < 4 * error
